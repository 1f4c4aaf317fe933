use agentflow::{AgentState, BackgroundTaskManager, graph, node, task};

#[task]
async fn deliver() {}

#[node]
async fn send(_state: &mut AgentState, task_manager: &BackgroundTaskManager) {
    let _ = task_manager.create_durable_task::<delivr>(()).spawn();
}

fn main() {
    let _ = graph! { send -> END; tasks { deliver } };
}

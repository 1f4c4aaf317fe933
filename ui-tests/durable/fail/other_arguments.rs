use agentflow::{AgentState, BackgroundTaskManager, graph, node, task};

#[task]
async fn deliver(args: String) {
    drop(args);
}

#[node]
async fn send(_state: &mut AgentState, task_manager: &BackgroundTaskManager) {
    let _ = task_manager.create_durable_task::<deliver>(3).spawn();
}

fn main() {
    let _ = graph! { send -> END; tasks { deliver } };
}

use agentflow::{AgentState, BackgroundTaskManager, graph, node};

struct Mail;

#[node]
async fn send(_state: &mut AgentState, task_manager: &BackgroundTaskManager) {
    let _ = task_manager.create_durable_task::<Mail>(String::new()).spawn();
}

fn main() {
    let _ = graph! { send -> END };
}

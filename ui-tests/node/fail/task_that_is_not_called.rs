use agentflow::{AgentState, BackgroundTaskManager, NodeError, graph, node};

async fn send() {}

#[node]
async fn greet(state: &mut AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
    state.context.clear();
    task_manager.create_task(send).name("send").spawn()?;
    Ok(())
}

fn main() {
    let _ = graph! { greet -> END };
}

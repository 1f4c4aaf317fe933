use agentflow::{AgentState, BackgroundTaskManager, NodeError, graph, node};

async fn count() -> u32 {
    1
}

#[node]
async fn greet(state: &mut AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
    state.context.clear();
    task_manager.create_task(count()).name("count").spawn()?;
    Ok(())
}

fn main() {
    let _ = graph! { greet -> END };
}

use agentflow::{AgentState, BackgroundTaskManager, graph, node};

#[node]
async fn greet(state: &mut AgentState, task_manager: BackgroundTaskManager) {
    state.context.clear();
    let _ = task_manager;
}

fn main() {
    let _ = graph! { greet -> END };
}

use agentflow::{AgentState, BackgroundTaskManager, graph, node};

#[node]
async fn greet(state: &mut AgentState, manager: &BackgroundTaskManager) {
    let _ = manager;
    state.context.clear();
}

fn main() {
    let _ = graph! { greet -> END };
}

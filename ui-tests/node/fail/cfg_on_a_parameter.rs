use agentflow::{AgentState, RunConfig, graph, node};

#[node]
async fn greet(state: &mut AgentState, #[cfg(debug_assertions)] config: &RunConfig) {
    state.context.clear();
    let _ = config;
}

fn main() {
    let _ = graph! { greet -> END };
}

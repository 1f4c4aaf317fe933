use agentflow::{AgentState, RunConfig, graph, node};

#[node]
async fn greet(state: &mut AgentState, #[inject] config: &RunConfig) {
    let _ = config;
    state.context.clear();
}

fn main() {
    let _ = graph! { greet -> END };
}

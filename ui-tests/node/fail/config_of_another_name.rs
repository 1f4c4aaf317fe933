use agentflow::{AgentState, RunConfig, graph, node};

#[node]
async fn greet(state: &mut AgentState, cfg: &RunConfig) {
    let _ = cfg;
    state.context.clear();
}

fn main() {
    let _ = graph! { greet -> END };
}

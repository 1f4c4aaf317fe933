use agentflow::{AgentState, RunConfig, graph, node};

#[node]
async fn greet(state: &mut AgentState, confg: &RunConfig) {
    state.context.clear();
    let _ = confg;
}

fn main() {
    let _ = graph! { greet -> END };
}

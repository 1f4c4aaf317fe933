use agentflow::{AgentState, NodeFailure, graph, node};

#[node]
async fn greet(state: &mut AgentState, failure: Option<&NodeFailure>) {
    let _ = failure;
    state.context.clear();
}

fn main() {
    let _ = graph! { greet -> END };
}

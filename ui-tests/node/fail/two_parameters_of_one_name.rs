use agentflow::{AgentState, graph, node};

#[node]
async fn greet(state: &mut AgentState, _state: &AgentState) {
    state.context.clear();
}

fn main() {
    let _ = graph! { greet -> END };
}

use agentflow::{AgentState, graph, node};

#[node]
const fn greet(state: &mut AgentState) {
    let _ = state;
}

fn main() {
    let _ = graph! { greet -> END };
}

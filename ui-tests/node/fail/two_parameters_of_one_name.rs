use agentflow::{AgentState, graph, node};

#[node]
async fn greet(state: &mut AgentState, state: &AgentState) {
    let _ = state;
}

fn main() {
    let _ = graph! { greet -> END };
}

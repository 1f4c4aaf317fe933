use agentflow::{AgentState, graph, node};

#[node]
async fn greet(state: &AgentState) -> &str {
    let _ = state;
    ""
}

fn main() {
    let _ = graph! { greet -> END };
}

use agentflow::{AgentState, graph, node};

#[node]
async fn greet(s: &AgentState) {
    let _ = s;
}

fn main() {
    let _ = graph! { greet -> END };
}

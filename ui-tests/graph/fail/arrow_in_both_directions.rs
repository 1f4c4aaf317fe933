use agentflow::{AgentState, graph, node};

#[node]
async fn a(_state: &AgentState) {}

#[node]
async fn b(_state: &AgentState) {}

fn main() {
    let _ = graph! { a <-> b; b -> END };
}

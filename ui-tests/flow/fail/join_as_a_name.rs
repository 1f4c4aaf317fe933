use agentflow::{AgentState, graph, node};

#[node]
async fn a(_state: &AgentState) {}

#[node]
async fn b(_state: &AgentState) {}

#[node]
async fn c(_state: &AgentState) {}

#[node]
async fn d(_state: &AgentState) {}

fn main() {
    let _ = graph! { node JOIN = b; a -> JOIN -> END };
}

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
    let _ = graph! { node B = b { on_error: d }; a -> { B, c } -> d -> END };
}

use agentflow::{AgentState, graph, node};

#[node]
async fn a(_state: &AgentState) {}

fn main() {
    let _ = graph! { a -> any {} -> END };
}

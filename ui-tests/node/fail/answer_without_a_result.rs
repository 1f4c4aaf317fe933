use agentflow::{AgentState, graph, node};

#[node]
async fn review(state: &mut AgentState, answer: Option<String>) {}

fn main() {
    graph! { review -> END };
}

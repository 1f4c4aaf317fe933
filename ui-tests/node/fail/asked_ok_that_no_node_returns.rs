use agentflow::{AgentState, Ask, NodeError, graph, node};

#[node]
async fn review(_state: &AgentState, answer: Option<String>) -> Result<Ask<String, u32>, NodeError> {
    Ok(Ask::Done(1))
}

fn main() {
    graph! { review -> END };
}

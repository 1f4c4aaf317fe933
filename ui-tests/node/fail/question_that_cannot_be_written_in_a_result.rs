use agentflow::{AgentState, Ask, NodeError, graph, node};

struct Review {
    draft: String,
}

#[node]
async fn review(state: &mut AgentState, answer: Option<String>) -> Result<Ask<Review>, NodeError> {
    Ok(Ask::Question(Review { draft: String::new() }))
}

fn main() {
    graph! { review -> END };
}

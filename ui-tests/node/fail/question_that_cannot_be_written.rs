use agentflow::{AgentState, Ask, graph, node};

struct Review {
    draft: String,
}

#[node]
async fn review(state: &mut AgentState, answer: Option<String>) -> Ask<Review> {
    Ask::Question(Review { draft: String::new() })
}

fn main() {
    graph! { review -> END };
}

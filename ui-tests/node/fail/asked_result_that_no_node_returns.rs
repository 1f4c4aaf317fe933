use agentflow::{AgentState, Ask, graph, node};

#[node]
async fn review(state: &mut AgentState, answer: Option<String>) -> Ask<String, u32> {
    Ask::Done(1)
}

fn main() {
    graph! { review -> END };
}

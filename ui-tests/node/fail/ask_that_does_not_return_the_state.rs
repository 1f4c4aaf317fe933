use agentflow::{AgentState, Ask, graph, node};

#[node]
async fn review(state: AgentState, answer: Option<String>) -> Ask<String> {
    Ask::Done(())
}

fn main() {
    graph! { review -> END };
}

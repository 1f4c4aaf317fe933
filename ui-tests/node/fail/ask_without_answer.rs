use agentflow::{AgentState, Ask, graph, node};

#[node]
async fn review(_state: &AgentState) -> Ask<String> {
    Ask::Done(())
}

fn main() {
    graph! { review -> END };
}

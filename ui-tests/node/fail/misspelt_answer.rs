use agentflow::{AgentState, Ask, graph, node};

#[node]
async fn review(state: &mut AgentState, answers: Option<String>) -> Ask<String> {
    Ask::Done(())
}

fn main() {
    graph! { review -> END };
}

use agentflow::{AgentState, Ask, graph, node};

#[node]
async fn review(state: &mut AgentState, answer: Option<Verdit>) -> Ask<String> {
    Ask::Done(())
}

fn main() {
    graph! { review -> END };
}

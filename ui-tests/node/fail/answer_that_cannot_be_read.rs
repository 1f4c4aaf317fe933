use agentflow::{AgentState, Ask, graph, node};

enum Verdict {
    Send,
}

#[node]
async fn review(state: &mut AgentState, answer: Option<Verdict>) -> Ask<String> {
    Ask::Done(())
}

fn main() {
    graph! { review -> END };
}

use agentflow::{AgentState, Ask, graph, node};

enum Verdict {
    Send,
}

#[node]
async fn review(_state: &AgentState, answer: Option<Verdict>) -> Ask<String> {
    Ask::Done(())
}

fn main() {
    graph! { type State = AgentState; START -> { review } -> END };
}

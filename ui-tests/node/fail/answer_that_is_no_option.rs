use agentflow::{AgentState, Ask, graph, node};
use serde::Deserialize;

#[derive(Deserialize)]
enum Verdict {
    Send,
}

#[node]
async fn review(state: &mut AgentState, answer: Verdict) -> Ask<String> {
    Ask::Done(())
}

fn main() {
    graph! { review -> END };
}

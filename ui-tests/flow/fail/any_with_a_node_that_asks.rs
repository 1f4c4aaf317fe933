use agentflow::{AgentState, Ask, graph, node};

#[node]
async fn fast(_state: &AgentState) {}

#[node]
async fn review(_state: &AgentState, answer: Option<String>) -> Ask<String> {
    answer.map_or(Ask::Question("which?".to_owned()), |_| Ask::Done(()))
}

fn main() {
    graph! { START -> any { fast, review } -> END };
}

use agentflow::{AgentState, Ask, NodeError, graph, message::AgentStateUpdate, node};

#[node]
async fn review(_state: &AgentState) -> Result<Ask<String, AgentStateUpdate>, NodeError> {
    Ok(Ask::Question("why?".to_owned()))
}

fn main() {
    graph! { START -> { review } -> END };
}

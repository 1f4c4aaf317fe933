use agentflow::{AgentState, NodeError, graph, node};

#[node]
async fn greet(state: &mut AgentState) -> Result<u8, NodeError> {
    state.context.clear();
    Ok(1)
}

fn main() {
    let _ = graph! { greet -> END };
}

use agentflow::{AgentState, NodeError, graph, node};

#[node]
async fn greet(mut state: AgentState) -> Result<(), NodeError> {
    state.context.clear();
    Ok(())
}

fn main() {
    let _ = graph! { greet -> END };
}

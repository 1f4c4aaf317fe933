use agentflow::{AgentState, graph, node};

#[node]
async fn greet(state: &mut AgentState) -> Result<(), NodeError> {
    state.context.clear();
    Ok(())
}

fn main() {
    let _ = graph! { greet -> END };
}

use agentflow::{AgentState, graph, node};

#[node]
async fn greet(state: &mut AgentState) -> Result<(), &str> {
    state.context.clear();
    Ok(())
}

fn main() {
    let _ = graph! { greet -> END };
}

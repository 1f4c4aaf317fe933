use std::error::Error;

use agentflow::{AgentState, graph, node};

#[node]
async fn greet(state: &mut AgentState) -> Result<(), Box<dyn Error>> {
    state.context.clear();
    Ok(())
}

fn main() {
    let _ = graph! { greet -> END };
}

use agentflow::{AgentState, graph, node};

#[node]
async fn greet(state: &mut AgentState) -> Result<(), impl std::error::Error> {
    state.context.clear();
    Ok::<(), std::io::Error>(())
}

fn main() {
    let _ = graph! { greet -> END };
}

use agentflow::{AgentState, graph, node};

#[node("MAIN")]
async fn greet(state: &mut AgentState) {
    state.context.clear();
}

fn main() {
    let _ = graph! { greet -> END };
}

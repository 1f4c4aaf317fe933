use agentflow::{AgentState, graph, node};

#[node(MAIN, OTHER)]
async fn greet(state: &mut AgentState) {
    state.context.clear();
}

fn main() {
    let _ = graph! { MAIN -> END };
}

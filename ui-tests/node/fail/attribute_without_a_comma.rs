use agentflow::{AgentState, graph, node};

#[node(MAIN crate = agentflow)]
async fn greet(state: &mut AgentState) {
    state.context.clear();
}

fn main() {
    let _ = graph! { MAIN -> END };
}

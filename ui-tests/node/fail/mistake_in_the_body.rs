use agentflow::{AgentState, graph, node};

#[node]
async fn greet(state: &mut AgentState) {
    state.contxt.clear();
}

fn main() {
    let _ = graph! { greet -> END };
}

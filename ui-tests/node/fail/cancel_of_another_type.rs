use agentflow::{AgentState, graph, node};

#[node]
async fn greet(state: &mut AgentState, cancel: bool) {
    state.context.clear();
    let _ = cancel;
}

fn main() {
    let _ = graph! { greet -> END };
}

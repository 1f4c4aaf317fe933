use agentflow::{AgentState, CancellationToken, graph, node};

#[node]
async fn greet(state: &mut AgentState, token: &CancellationToken) {
    let _ = token;
    state.context.clear();
}

fn main() {
    let _ = graph! { greet -> END };
}

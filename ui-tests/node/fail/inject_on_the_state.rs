use agentflow::{AgentState, graph, node};

#[node]
async fn greet(#[inject] state: &mut AgentState) {
    state.context.clear();
}

fn main() {
    let _ = graph! { greet -> END };
}

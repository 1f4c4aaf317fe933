use agentflow::{AgentState, graph, node};

#[node]
async fn greet(mut state: AgentState) {
    state.context.clear();
}

fn main() {
    let _ = graph! { greet -> END };
}

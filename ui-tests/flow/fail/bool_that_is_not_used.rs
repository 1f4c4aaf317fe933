use agentflow::{AgentState, graph, node};

#[node]
async fn full(state: &AgentState) -> bool {
    state.context.len() > 3
}

fn main() {
    let _ = graph! { full -> END; };
}

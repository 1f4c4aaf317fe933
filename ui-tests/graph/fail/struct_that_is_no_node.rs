use agentflow::{AgentState, graph, node};

#[node]
async fn a(state: &mut AgentState) {
    state.context.clear();
}

struct Plain;

fn main() {
    let _ = graph! { a -> Plain -> END };
    let _ = Plain;
}

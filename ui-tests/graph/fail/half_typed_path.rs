use agentflow::{AgentState, graph, node};

#[node]
async fn a(state: &mut AgentState) {
    state.context.clear();
}

pub mod other {}

fn main() {
    let _ = graph! { a -> other:: -> END };
}

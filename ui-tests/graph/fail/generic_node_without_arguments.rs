use agentflow::{AgentState, graph, node};

#[node]
async fn ask<T: Default + Send + Sync + 'static>(state: &mut AgentState) {
    let _ = T::default();
    state.context.clear();
}

fn main() {
    let _ = graph! { ask -> END };
}

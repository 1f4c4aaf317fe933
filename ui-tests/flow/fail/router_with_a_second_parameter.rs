use agentflow::{AgentState, graph, node};

fn full(state: &AgentState, limit: usize) -> bool {
    state.context.len() > limit
}

#[node]
async fn a(_state: &AgentState) {}

fn main() {
    let _ = graph! { a -> match full { true => END, false => a }; };
}

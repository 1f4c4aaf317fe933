use agentflow::{AgentState, graph, node};

fn size(state: &AgentState) -> usize {
    state.context.len()
}

#[node]
async fn a(_state: &AgentState) {}

fn main() {
    let _ = graph! { a -> match size { true => END, _ => a }; };
}

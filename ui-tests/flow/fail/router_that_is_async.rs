use agentflow::{AgentState, graph, node};

async fn next(state: &AgentState) -> bool {
    state.context.is_empty()
}

#[node]
async fn a(_state: &AgentState) {}

fn main() {
    let _ = graph! { a -> match next { true => END, _ => a }; };
}

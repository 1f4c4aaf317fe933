use agentflow::{AgentState, graph, node};

fn next(state: &mut AgentState) -> bool {
    state.context.is_empty()
}

#[node]
async fn a(_state: &AgentState) {}

fn main() {
    let _ = graph! { a -> match next { true => END, false => a }; };
}

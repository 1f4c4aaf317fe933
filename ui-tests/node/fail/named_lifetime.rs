use agentflow::{AgentState, graph, node};

#[node]
async fn greet<'a>(state: &'a mut AgentState) {
    state.context.clear();
}

fn main() {
    let _ = graph! { greet -> END };
}

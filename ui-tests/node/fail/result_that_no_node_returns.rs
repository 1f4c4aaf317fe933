use agentflow::{AgentState, graph, node};

#[node]
async fn greet(state: &mut AgentState) -> String {
    state.context.clear();
    String::new()
}

fn main() {
    let _ = graph! { greet -> END };
}

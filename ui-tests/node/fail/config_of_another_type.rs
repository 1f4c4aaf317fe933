use agentflow::{AgentState, graph, node};

#[node]
async fn greet(state: &mut AgentState, config: &String) {
    state.context.clear();
    let _ = config;
}

fn main() {
    let _ = graph! { greet -> END };
}

use agentflow::{AgentState, graph, node};

#[node]
async fn greet(state: Box<AgentState>) -> Box<AgentState> {
    state
}

fn main() {
    let _ = graph! { greet -> END };
}

use agentflow::{AgentState, graph, node};

#[node]
async fn a(_state: &AgentState) {}

#[node]
async fn b(state: AgentState) -> AgentState {
    state
}

#[node]
async fn c(_state: &AgentState) {}

fn main() {
    let _ = graph! { a -> { b, c } -> END; };
}

use agentflow::{AgentState, graph, node};

#[node]
async fn a(_state: &AgentState) {}

#[node]
async fn b(_state: &AgentState) {}

#[node]
async fn c(state: &mut AgentState) {
    state.context.clear();
}

#[node]
async fn d(_state: &AgentState) {}

#[node]
async fn e(_state: &AgentState) {}

fn main() {
    let _ = graph! { a -> { b, { c, d } -> e } -> END; };
}

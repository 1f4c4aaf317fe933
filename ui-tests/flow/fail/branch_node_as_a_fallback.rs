use agentflow::{AgentState, graph, node};

#[node]
async fn a(_state: &AgentState) {}

#[node]
async fn b(_state: &AgentState) {}

#[node]
async fn c(_state: &AgentState) {}

fn main() {
    let _ = graph! {
        node A = a { on_error: b };
        A -> { b, c } -> END;
    };
}

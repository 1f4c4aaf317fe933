use agentflow::{AgentState, graph, node};

#[node]
async fn a(_state: &AgentState) {}

#[node]
async fn b(_state: &mut AgentState) {}

#[node]
async fn c(_state: &AgentState) {}

fn main() {
    let _ = graph! {
        graph RESEARCH { b -> END }
        a -> { RESEARCH, c } -> END;
    };
}

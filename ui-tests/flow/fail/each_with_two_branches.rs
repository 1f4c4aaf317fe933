use agentflow::{AgentState, graph, node};

#[node]
async fn a(_state: &AgentState) {}

#[node]
async fn research(_state: &AgentState, input: &String) {
    let _ = input;
}

fn topics(_: &AgentState) -> Vec<String> {
    Vec::new()
}

#[node]
async fn b(_state: &AgentState, input: &String) {
    let _ = input;
}

fn main() {
    let _ = graph! { a -> each topics { research, b } -> END };
}

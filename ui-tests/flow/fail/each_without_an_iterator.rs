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

fn count(_: &AgentState) -> u32 {
    3
}

fn main() {
    let _ = graph! { a -> each count { research } -> END };
}

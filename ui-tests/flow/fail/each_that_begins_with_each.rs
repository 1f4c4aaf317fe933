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

fn main() {
    let _ = graph! { a -> each topics { each topics { research } } -> END };
}

use agentflow::{AgentState, graph, node};

#[node]
async fn a(_state: &AgentState) {}

#[node]
async fn take(input: &str) {
    let _ = input;
}

fn main() {
    let _ = graph! { type State = AgentState; a -> match |_: &AgentState| 1 { 1 => take(String::new()) -> END, _ => END } };
}

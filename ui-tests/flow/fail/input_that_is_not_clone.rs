use agentflow::{AgentState, graph, node};

#[node]
async fn a(_state: &AgentState) {}

struct Big;

#[node]
async fn take(input: Big) {
    drop(input);
}

fn main() {
    let _ = graph! { type State = AgentState; a -> match |_: &AgentState| 1 { 1 => take(Big) -> END, _ => END } };
}

use std::rc::Rc;

use agentflow::{AgentState, graph, node};

#[node]
async fn a(_state: &AgentState) {}

#[node]
async fn take(input: &Rc<u32>) {
    let _ = input;
}

fn main() {
    let _ = graph! { type State = AgentState; a -> match |_: &AgentState| 1 { 1 => take(Rc::new(1)) -> END, _ => END } };
}

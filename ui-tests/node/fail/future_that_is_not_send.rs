use std::rc::Rc;

use agentflow::{AgentState, graph, node};

#[node]
async fn greet(state: &mut AgentState) {
    let kept = Rc::new(1);
    std::future::ready(()).await;
    state.context.truncate(*kept);
}

fn main() {
    let _ = graph! { greet -> END };
}

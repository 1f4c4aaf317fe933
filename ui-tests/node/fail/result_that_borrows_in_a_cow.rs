use std::borrow::Cow;

use agentflow::{AgentState, graph, node};

#[node]
async fn greet(state: &AgentState) -> Cow<'_, str> {
    let _ = state;
    Cow::Borrowed("")
}

fn main() {
    let _ = graph! { greet -> END };
}

//! `on_commit` is called with a `Commit`, and with nothing else.

use agentflow::{AgentState, graph, node};

#[node]
async fn a(_state: &AgentState) {}

fn save(_node: &str) {}

fn main() {
    let _ = graph! { a -> END; compile { on_commit: save } };
}

//! The closure of `on_commit` knows the type of the state.

use agentflow::{AgentState, graph, node};

#[node]
async fn a(_state: &AgentState) {}

fn main() {
    let _ = graph! { a -> END; compile { on_commit: |commit| println!("{}", commit.state.pages) } };
}

//! A fallback is another node: the node itself would fail again.

use agentflow::{AgentState, NodeError, graph, node};

#[node]
async fn ask(_state: &mut AgentState) -> Result<(), NodeError> {
    Err("no answer".into())
}

fn main() {
    let _ = graph! { node ASK = ask { on_error: ASK }; ASK -> END };
}

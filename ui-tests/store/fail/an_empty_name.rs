use std::sync::Arc;

use agentflow::{AgentState, graph, node, store::Store};

#[node]
async fn write(_state: &mut AgentState) {}

fn app(store: Arc<dyn Store>) {
    let _ = graph! { name = " "; write -> END; compile { store: store } };
}

fn main() {}

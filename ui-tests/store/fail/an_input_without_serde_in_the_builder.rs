use std::sync::Arc;

use agentflow::{CompileOptions, END, State, StateGraph, node, store::Store};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, State)]
struct Mail {
    to: String,
}

#[derive(Clone)]
struct Call;

#[node]
async fn tool(_state: &mut Mail, input: &Call) {
    let _ = input;
}

fn app(store: Arc<dyn Store>) {
    let mut graph = StateGraph::new();
    graph.set_name("mail");
    graph.add_node("TOOL", tool {});
    graph.set_entry_point("TOOL");
    graph.add_edge("TOOL", END);
    let _ = graph.compile(CompileOptions::new().store(store));
}

fn main() {}

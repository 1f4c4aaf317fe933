use std::sync::Arc;

use agentflow::{CompileOptions, END, State, StateGraph, node, store::Store};

#[derive(Clone, State)]
struct Mail {
    to: String,
}

#[node]
async fn write(_state: &mut Mail) {}

fn app(store: Arc<dyn Store>) {
    let mut graph = StateGraph::new();
    graph.set_name("mail");
    graph.add_node("WRITE", write {});
    graph.set_entry_point("WRITE");
    graph.add_edge("WRITE", END);
    let _ = graph.compile(CompileOptions::new().store(store));
}

fn main() {}

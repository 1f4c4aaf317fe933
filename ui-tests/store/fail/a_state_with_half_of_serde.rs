use std::sync::Arc;

use agentflow::{State, graph, node, store::Store};
use serde::Serialize;

#[derive(Clone, Serialize, State)]
struct Mail {
    to: String,
}

#[node]
async fn write(_state: &mut Mail) {}

fn app(store: Arc<dyn Store>) {
    let _ = graph! { name = "mail"; write -> END; compile { store: store } };
}

fn main() {}

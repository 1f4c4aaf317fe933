use std::sync::Arc;

use agentflow::{State, graph, node, store::Store};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, State)]
#[state(not_stored)]
struct Mail {
    to: String,
}

#[node]
async fn write(_state: &mut Mail) {}

fn app(store: Arc<dyn Store>) {
    let _ = graph! { name = "mail"; write -> END; compile { store: store } };
}

fn main() {}

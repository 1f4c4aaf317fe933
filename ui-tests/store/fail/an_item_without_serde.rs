use std::sync::Arc;

use agentflow::{State, graph, node, store::Store};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, State)]
struct Mail {
    to: String,
}

struct Topic;

fn topics(_state: &Mail) -> Vec<Topic> {
    Vec::new()
}

#[node]
async fn research(_state: &Mail, input: &Topic) {
    let _ = input;
}

fn app(store: Arc<dyn Store>) {
    let _ = graph! {
        name = "mail";
        START -> each topics { research } -> END;
        compile { store: store }
    };
}

fn main() {}

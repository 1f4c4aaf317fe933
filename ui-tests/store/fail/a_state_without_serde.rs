use std::sync::Arc;

use agentflow::{State, graph, node, store::Store};

#[derive(Clone, State)]
struct Mail {
    to: String,
}

#[node]
async fn write(_state: &mut Mail) {}

#[node]
async fn send(_state: &mut Mail) {}

fn app(store: Arc<dyn Store>) {
    let _ = graph! {
        name = "mail";
        write -> send -> END;
        compile { recursion_limit: 5, store: store }
    };
}

fn main() {}

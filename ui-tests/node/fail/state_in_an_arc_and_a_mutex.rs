use std::sync::{Arc, Mutex};

use agentflow::{AgentState, graph, node};

#[node]
async fn greet(state: Arc<Mutex<AgentState>>) {
    let _ = state;
}

fn main() {
    let _ = graph! { greet -> END };
}

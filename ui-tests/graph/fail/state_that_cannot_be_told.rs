use agentflow::{graph, node};

#[node]
async fn log() {}

fn main() {
    let _ = graph! { log -> END };
}

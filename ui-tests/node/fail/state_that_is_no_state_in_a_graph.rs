use agentflow::{graph, node};

#[derive(Clone)]
struct Report;

#[node]
async fn greet(state: &mut Report) {
    let _ = state;
}

fn main() {
    let _ = graph! { greet -> END };
}

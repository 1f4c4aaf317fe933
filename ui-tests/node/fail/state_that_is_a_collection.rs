use agentflow::{graph, node};

#[node]
async fn greet(state: &mut Vec<String>) {
    state.clear();
}

fn main() {
    let _ = graph! { greet -> END };
}

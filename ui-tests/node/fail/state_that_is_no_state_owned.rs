use agentflow::node;

#[derive(Clone)]
struct Report;

#[node(MAIN)]
async fn greet(state: Report) -> Report {
    state
}

fn main() {
    let _ = MAIN;
}

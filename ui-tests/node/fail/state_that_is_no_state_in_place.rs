use agentflow::node;

#[derive(Clone)]
struct Report;

#[node(MAIN)]
async fn greet(state: &mut Report) {
    let _ = state;
}

fn main() {
    let _ = MAIN;
}

use agentflow::{State, node};

#[derive(Clone, State)]
struct Report {
    title: String,
}

#[derive(Clone, State)]
struct Essay {
    title: String,
}

#[node(MAIN)]
async fn greet(state: &Report) -> EssayUpdate {
    Essay::update().title(&*state.title)
}

fn main() {
    let _ = MAIN;
}

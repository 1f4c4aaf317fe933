use agentflow::{State, graph, node};

#[derive(Clone, State)]
struct Report {
    title: String,
}

#[derive(Clone, State)]
struct Essay {
    title: String,
}

#[node]
async fn greet(state: &Report) -> EssayUpdate {
    Essay::update().title(&*state.title)
}

fn main() {
    let _ = graph! { greet -> END };
}

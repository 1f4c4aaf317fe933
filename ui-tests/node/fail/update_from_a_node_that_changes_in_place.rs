use agentflow::{State, graph, node};

#[derive(Clone, State)]
struct Report {
    title: String,
}

#[node]
async fn greet(state: &mut Report) -> ReportUpdate {
    Report::update().title(&*state.title)
}

fn main() {
    let _ = graph! { greet -> END };
}

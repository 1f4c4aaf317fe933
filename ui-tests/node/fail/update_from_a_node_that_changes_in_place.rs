use agentflow::{State, node};

#[derive(Clone, State)]
struct Report {
    title: String,
}

#[node(MAIN)]
async fn greet(state: &mut Report) -> ReportUpdate {
    Report::update().title(&*state.title)
}

fn main() {
    let _ = MAIN;
}

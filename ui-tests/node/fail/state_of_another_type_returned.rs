use agentflow::{AgentState, State, node};

#[derive(Clone, Default, State)]
struct Report {
    title: String,
}

#[node(MAIN)]
async fn greet(state: AgentState) -> Report {
    let _ = state;
    Report::default()
}

fn main() {
    let _ = MAIN;
}

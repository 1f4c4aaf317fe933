use agentflow::{AgentState, State, graph, node};

#[derive(Clone, Default, State)]
struct Report {
    title: String,
}

#[node]
async fn greet(state: AgentState) -> Report {
    let _ = state;
    Report::default()
}

fn main() {
    let _ = graph! { greet -> END };
}

use agentflow::{AgentState, State, graph, node};

#[node]
async fn a(state: &mut AgentState) {
    state.context.clear();
}

#[derive(Clone, State)]
struct Report {
    title: String,
}

#[node]
async fn write(state: &mut Report) {
    state.title.clear();
}

fn main() {
    let _ = graph! { a -> write -> END };
}

use agentflow::{AgentState, State, graph, node};

#[node]
async fn a(state: &mut AgentState) {
    state.context.clear();
}

#[derive(Clone, State)]
struct Report {
    title: String,
}

fn main() {
    let _ = graph! {
        type State = Report;
        a -> END;
    };
}

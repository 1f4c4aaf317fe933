use agentflow::{AgentState, EventWriter, graph, node};

#[node]
async fn greet(state: &mut AgentState, ev: &EventWriter) {
    let _ = ev;
    state.context.clear();
}

fn main() {
    let _ = graph! { greet -> END };
}

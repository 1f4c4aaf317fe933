use agentflow::{AgentState, EventWriter, graph, node};

#[node]
async fn greet(state: &mut AgentState, events: &mut EventWriter) {
    state.context.clear();
    let _ = events;
}

fn main() {
    let _ = graph! { greet -> END };
}

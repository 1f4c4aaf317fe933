use agentflow::{AgentState, State, graph, node};

#[node]
async fn greet(state: &mut impl State) {
    let _ = state;
}

fn main() {
    let _ = graph! { type State = AgentState; greet -> END };
}

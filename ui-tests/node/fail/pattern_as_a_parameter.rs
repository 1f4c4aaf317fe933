use agentflow::{AgentState, graph, node};

#[node]
async fn greet(AgentState { context, .. }: &mut AgentState) {
    context.clear();
}

fn main() {
    let _ = graph! { type State = AgentState; greet -> END };
}

use agentflow::{AgentState, graph, node};

#[node]
async fn greet(s: &mut AgentState) {
    s.context.clear();
}

fn main() {
    let _ = graph! { greet -> END };
}

use agentflow::{AgentState, graph, node};

#[node]
async fn start(state: &mut AgentState) {
    state.context.clear();
}

#[node]
async fn finish(state: &mut AgentState) {
    state.context.clear();
}

fn main() {
    let _ = graph! { start -> finsh -> END };
}

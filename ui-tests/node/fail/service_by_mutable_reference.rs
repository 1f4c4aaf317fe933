use agentflow::{AgentState, graph, node};

struct Database;

#[node]
async fn greet(state: &mut AgentState, #[inject] db: &mut Database) {
    state.context.clear();
    let _ = db;
}

fn main() {
    let _ = graph! { greet -> END };
}

use agentflow::{AgentState, graph, node};

struct Database;

struct Services;

#[node]
async fn greet(state: &mut AgentState, #[inject] db: &Database) {
    state.context.clear();
    let _ = db;
}

fn main() {
    let _ = graph! { greet -> END; compile { services: Services } };
}

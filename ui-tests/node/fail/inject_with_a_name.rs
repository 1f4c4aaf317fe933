use agentflow::{AgentState, graph, node};

struct Db;

#[node]
async fn greet(state: &mut AgentState, #[inject(main)] db: &Db) {
    let _ = db;
    state.context.clear();
}

fn main() {
    let _ = graph! { greet -> END };
}

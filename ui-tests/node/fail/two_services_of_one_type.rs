use agentflow::{AgentState, graph, node};

struct Db;

#[node]
async fn greet(state: &mut AgentState, #[inject] reader: &Db, #[inject] writer: &Db) {
    let _ = (reader, writer);
    state.context.clear();
}

fn main() {
    let _ = graph! { greet -> END };
}

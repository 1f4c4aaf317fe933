use agentflow::{AgentState, graph, node};

struct Database;

#[node]
async fn load(_state: &AgentState, #[inject] _db: &Database) {}

#[node]
async fn a(_state: &AgentState) {}

#[node]
async fn c(_state: &AgentState) {}

fn main() {
    let _ = graph! { a -> { load, c } -> END; };
}

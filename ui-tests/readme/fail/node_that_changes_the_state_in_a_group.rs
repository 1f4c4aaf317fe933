use agentflow::{AgentState, graph, node};

#[node]
async fn plan(_state: &mut AgentState) {}

#[node]
async fn search(_state: &AgentState) {}

#[node]
async fn edit(_state: &mut AgentState) {}

fn main() {
    let _app = graph! { plan -> { search, edit } -> END };
}

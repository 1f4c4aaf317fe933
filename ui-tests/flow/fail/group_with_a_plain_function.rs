use agentflow::{AgentState, graph, node};

async fn plain(_state: &AgentState) {}

#[node]
async fn a(_state: &AgentState) {}

#[node]
async fn c(_state: &AgentState) {}

fn main() {
    let _ = graph! { a -> { plain, c } -> END; };
}

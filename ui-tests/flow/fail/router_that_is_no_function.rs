use agentflow::{AgentState, graph, node};

const LIMIT: u32 = 3;

#[node]
async fn a(_state: &AgentState) {}

fn main() {
    let _ = graph! { a -> match LIMIT { 3 => END, _ => a }; };
}

use agentflow::{AgentState, graph, node, task};

#[task]
async fn deliver() {}

#[node]
async fn send(_state: &mut AgentState) {}

fn main() {
    let _ = graph! { graph SUB { send -> END; tasks { deliver } } SUB -> END };
}

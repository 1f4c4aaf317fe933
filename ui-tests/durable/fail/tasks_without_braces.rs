use agentflow::{AgentState, graph, node, task};

#[task]
async fn deliver() {}

#[node]
async fn send(_state: &mut AgentState) {}

fn main() {
    let _ = graph! { send -> END; tasks = [deliver] };
}

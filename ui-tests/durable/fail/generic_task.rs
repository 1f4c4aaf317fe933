use agentflow::{AgentState, graph, node, task};

#[task]
async fn deliver<T: Send>(args: String) {
    drop(args);
}

#[node]
async fn send(_state: &mut AgentState) {}

fn main() {
    let _ = graph! { send -> END; tasks { deliver::<u8> } };
}

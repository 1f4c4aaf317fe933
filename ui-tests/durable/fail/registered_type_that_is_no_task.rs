use agentflow::{AgentState, graph, node};

struct Mail;

#[node]
async fn send(_state: &mut AgentState) {}

fn main() {
    let _ = graph! { send -> END; tasks { Mail } };
}

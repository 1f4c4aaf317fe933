use agentflow::{AgentState, graph, node, task};

#[task]
async fn deliver(args: Outgoing) -> Result<(), std::io::Error> {
    drop(args);
    Ok(())
}

#[node]
async fn send(_state: &mut AgentState) {}

// The unknown type is reported once, in the signature.
fn main() {
    let _ = graph! { send -> END; tasks { deliver } };
}

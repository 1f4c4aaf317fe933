use agentflow::{AgentState, RunConfig, node};

#[node]
async fn greet(state: &mut AgentState, confg: &RunConfig) {
    let _ = (state, confg);
}

fn main() {}

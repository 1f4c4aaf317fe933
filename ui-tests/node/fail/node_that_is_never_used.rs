#![deny(dead_code)]

use agentflow::{AgentState, node};

#[node]
async fn greet(state: &mut AgentState) {
    state.context.clear();
}

fn main() {}

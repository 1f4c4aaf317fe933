use agentflow::{AgentState, node};

#[node(MAIN)]
async fn greet(state: &mut AgentState) -> Result<(), u32> {
    state.context.clear();
    Err(1)
}

fn main() {
    let _ = MAIN;
}

use agentflow::{AgentState, node};

enum Step {
    Tools,
    Done,
}

#[node(DECIDE)]
async fn decide(state: &AgentState) -> Step {
    if state.context.is_empty() { Step::Tools } else { Step::Done }
}

fn main() {
    let _ = DECIDE;
}

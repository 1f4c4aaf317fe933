use agentflow::{AgentState, Route, node};

#[derive(Route)]
enum Step {
    Tools,
    Done,
}

#[node(DECIDE)]
async fn decide(state: &mut AgentState) -> (Step, ()) {
    if state.context.is_empty() { (Step::Tools, ()) } else { (Step::Done, ()) }
}

fn main() {
    let _ = DECIDE;
}

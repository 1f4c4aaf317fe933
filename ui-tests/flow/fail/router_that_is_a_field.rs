use agentflow::{AgentState, graph, node};

enum Step {
    Tools,
    Done,
}

fn next(state: &AgentState) -> Step {
    if state.context.is_empty() { Step::Tools } else { Step::Done }
}

#[node]
async fn a(_state: &AgentState) {}

#[node]
async fn tools(_state: &AgentState) {}

fn main() {
    let _ = graph! { a -> match state.done { true => a, false => END } };
}

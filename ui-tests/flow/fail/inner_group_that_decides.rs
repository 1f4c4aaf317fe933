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
async fn b(_state: &AgentState) {}

#[node]
async fn c(_state: &AgentState) {}

#[node]
async fn d(_state: &AgentState) {}

fn main() {
    let _ = graph! { a -> { b, { c, d } -> match next { Step::Tools => JOIN, Step::Done => END } } -> END; };
}

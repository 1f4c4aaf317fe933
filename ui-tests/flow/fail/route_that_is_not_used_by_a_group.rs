use agentflow::{AgentState, Route, graph, node};

#[derive(Route)]
enum Step {
    Tools,
    Done,
}

#[node]
async fn decide(state: &AgentState) -> Step {
    if state.context.is_empty() { Step::Tools } else { Step::Done }
}

#[node]
async fn b(_state: &AgentState) {}

#[node]
async fn c(_state: &AgentState) {}

fn main() {
    let _ = graph! { decide -> { b, c } -> END; };
}

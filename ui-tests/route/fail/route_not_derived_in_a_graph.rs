use agentflow::{AgentState, graph, node};

enum Step {
    Tools,
    Done,
}

#[node]
async fn decide(state: &AgentState) -> Step {
    if state.context.is_empty() { Step::Tools } else { Step::Done }
}

fn main() {
    let _ = graph! { decide -> match { Step::Tools => decide, Step::Done => END } };
}

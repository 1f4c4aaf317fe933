use agentflow::{AgentState, graph, node};

enum Step {
    Tools,
    Done,
    Ask,
}

#[node]
async fn model(state: &mut AgentState) {
    state.context.clear();
}

fn next(state: &AgentState) -> Step {
    match state.context.len() {
        0 => Step::Tools,
        1 => Step::Ask,
        _ => Step::Done,
    }
}

#[node]
async fn tools(state: &mut AgentState) {
    state.context.clear();
}

fn main() {
    let _ = graph! {
        model -> match next {
            Step::Done => END,
            Step::Tools => tools -> model,
        }
    };
}

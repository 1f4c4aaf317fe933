use agentflow::{AgentState, Route, graph, node};

#[derive(Clone)]
struct Call;

#[derive(Route)]
enum Step {
    Tools(Vec<Call>),
    Done,
}

#[node]
async fn model(_state: &mut AgentState) -> Step {
    Step::Tools(vec![Call])
}

#[node]
async fn tools(_state: &mut AgentState, input: Vec<Call>) {
    drop(input);
}

#[node]
async fn plain(_state: &mut AgentState) {}

fn main() {
    let _ = graph! { model -> match { Step::Tools(calls) => tools(calls.len()) -> model, Step::Done => plain -> END } };
}

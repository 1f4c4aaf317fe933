use agentflow::{AgentState, Route, graph, node};

#[derive(Route)]
enum Step {
    Tools,
    AskHuman,
    Done,
}

#[node]
async fn model(_state: &mut AgentState) -> Step {
    Step::Done
}

#[node]
async fn tools(_state: &mut AgentState) {}

fn main() {
    let _app = graph! {
        model -> match {
            Step::Tools => tools -> model,
            Step::Done => END,
        }
    };
}

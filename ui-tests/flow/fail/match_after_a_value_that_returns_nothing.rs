use agentflow::{AgentState, Route, graph, node};

#[derive(Route)]
enum Step {
    Tools,
    Done,
}

#[node]
async fn a(_state: &AgentState) {}

#[node]
async fn b(_state: &AgentState) {}

fn main() {
    let _ = graph! {
        node A = (a {});
        A -> match { Step::Tools => b -> END, Step::Done => END };
    };
}

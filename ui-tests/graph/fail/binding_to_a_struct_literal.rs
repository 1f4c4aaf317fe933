use agentflow::{AgentState, graph, node};

struct Say {
    text: &'static str,
}

#[node]
async fn a(_state: &AgentState) {}

#[node]
async fn b(_state: &AgentState) {}

fn main() {
    let _ = graph! {
        node SAY = Say { text: "hello" };
        SAY -> END;
    };
}

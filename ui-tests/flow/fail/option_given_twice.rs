use agentflow::{AgentState, graph, node};

#[node]
async fn a(_state: &AgentState) {}

#[node]
async fn b(_state: &AgentState) {}

#[node]
async fn c(_state: &AgentState) {}

fn main() {
    let _ = graph! {
        node A = a { on_error: b, on_error: c };
        A -> END;
        b -> END;
        c -> END;
    };
}

use agentflow::{AgentState, graph, node};

#[node]
async fn a(_state: &AgentState) {}

#[node]
async fn recover(_state: &AgentState) {}

fn main() {
    let _ = graph! {
        node A = a { on_error: recver };
        A -> END;
        recover -> END;
    };
}

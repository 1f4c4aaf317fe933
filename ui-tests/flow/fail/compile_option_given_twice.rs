use agentflow::{AgentState, graph, node};

#[node]
async fn a(_state: &AgentState) {}

fn main() {
    let _ = graph! {
        a -> END;
        compile { recursion_limit: 3, recursion_limit: 4 }
    };
}

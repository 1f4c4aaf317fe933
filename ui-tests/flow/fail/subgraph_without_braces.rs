use agentflow::{AgentState, graph, node};

#[node]
async fn a(_state: &AgentState) {}

fn main() {
    let _ = graph! {
        graph RESEARCH;
        a -> RESEARCH -> END;
    };
}

use agentflow::{AgentState, graph, node};

#[node]
async fn a(_state: &AgentState) {}

#[node]
async fn plan(_state: &AgentState) {}

fn main() {
    let _ = graph! {
        a -> plan;
        plann -> END;
    };
}

use agentflow::{AgentState, graph, node};

#[node]
async fn ask<M: Default + Send + Sync + 'static>(_state: &AgentState) {
    let _ = M::default();
}

#[node]
async fn a(_state: &AgentState) {}

fn main() {
    let _ = graph! {
        a -> ask::<u32>;
        aks::<u32> -> END;
    };
}

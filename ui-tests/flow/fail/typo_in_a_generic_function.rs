use agentflow::{AgentState, CompiledGraph, graph, node};

#[node]
async fn ask<M: Default + Send + Sync + 'static>(_state: &AgentState) {
    let _ = M::default();
}

#[node]
async fn a(_state: &AgentState) {}

fn app<M: Default + Send + Sync + 'static>() -> CompiledGraph<AgentState> {
    graph! {
        a -> aks::<M>;
        ask::<M> -> END;
    }
}

fn main() {
    let _ = app::<u32>();
}

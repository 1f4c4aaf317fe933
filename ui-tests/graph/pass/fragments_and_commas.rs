use agentflow::{AgentState, CompiledGraph, graph, node};

#[node]
async fn a(state: &mut AgentState) {
    state.context.clear();
}

#[node]
async fn b(state: &mut AgentState) {
    state.context.clear();
}

fn full<A, B>() -> bool {
    size_of::<A>() == size_of::<B>()
}

macro_rules! pipeline {
    ($name:literal, $state:ty, $first:path $(, $next:path)*) => {
        graph! { name = $name; type State = $state; $first $(-> $next)* -> END }
    };
}

fn main() {
    let _: CompiledGraph<AgentState> = pipeline!("two", AgentState, a, crate::b);
    let _: CompiledGraph<AgentState> = graph! {
        a -> match |state: &AgentState| state.context.is_empty() {
            true if full::<u8, u16>() => a,
            _ => b -> END,
        };
    };
}

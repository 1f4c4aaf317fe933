//! A type parameter needs no `'static`: a node outlives every borrow.
#![deny(warnings)]

use agentflow::{AgentState, graph, node};

#[node]
async fn name<T>(state: &mut AgentState) {
    state.context.clear();
    let _ = std::any::type_name::<T>();
}

fn main() {
    let _ = graph! { name<u8> -> END };
}

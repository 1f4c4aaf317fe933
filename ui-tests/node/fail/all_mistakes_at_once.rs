use agentflow::{AgentState, RunConfig, graph, node};

#[node]
unsafe fn greet<'a>(
    (state, _): (&mut AgentState, u8),
    confg: &'a RunConfig,
    task_manager: &impl Clone,
    #[inject] db: String,
) -> impl Sized {
    let _ = (state, confg, task_manager, db);
}

// The mistakes are above; the uses of the node add none.
fn main() {
    let _ = graph! { type State = AgentState; greet -> END };
}

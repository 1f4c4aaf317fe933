use agentflow::{AgentState, graph, node};

#[node]
async fn greet(state: &mut AgentState) -> ! {
    state.context.clear();
    panic!()
}

fn main() {
    let _ = graph! { greet -> END };
}

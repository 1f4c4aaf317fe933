use agentflow::{AgentState, graph, node};

#[node]
async fn again(state: &mut AgentState) -> bool {
    state.context.is_empty()
}

#[node]
async fn last(state: &mut AgentState) {
    state.context.clear();
}

fn main() {
    let _ = graph! {
        again -> match {
            true => again,
            false => last,
        } -> END
    };
}

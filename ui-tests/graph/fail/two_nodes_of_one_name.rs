use agentflow::{AgentState, graph, node};

#[node]
async fn a(state: &mut AgentState) {
    state.context.clear();
}

mod other {
    use super::{AgentState, node};

    #[node]
    pub async fn a(state: &mut AgentState) {
        state.context.clear();
    }
}

fn main() {
    let _ = graph! { a -> other::a -> END };
}

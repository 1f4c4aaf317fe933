use agentflow::{AgentState, graph, node};

#[node]
async fn a(state: &mut AgentState) {
    state.context.clear();
}

mod other {
    use super::{AgentState, node};

    #[node]
    async fn b(state: &mut AgentState) {
        state.context.clear();
    }

    pub fn keep() {
        let _ = b(&mut AgentState::default());
    }
}

fn main() {
    let _ = graph! { a -> other::b -> END };
    other::keep();
}

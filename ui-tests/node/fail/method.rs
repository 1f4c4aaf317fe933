use agentflow::{AgentState, node};

struct Greeter;

impl Greeter {
    #[node]
    async fn greet(&self, state: &mut AgentState) {
        state.context.clear();
    }
}

fn main() {
    let _ = Greeter.greet(&mut AgentState::default());
}

use agentflow::{AgentState, node};

struct Greeter;

impl Greeter {
    #[node]
    async fn greet(state: &mut AgentState) -> Result<(), Self> {
        state.context.clear();
        Ok(())
    }
}

fn main() {
    let _ = Greeter;
}

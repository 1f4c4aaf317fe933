use agentflow::{AgentState, Ask, node};

#[node]
async fn review<A: Send + 'static>(state: &mut AgentState, answer: Option<A>) -> Ask<String> {
    Ask::Done(())
}

fn main() {}

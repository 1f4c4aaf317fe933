use agentflow::{AgentState, Ask, graph, node};

type Asked = Ask<String>;

#[node]
async fn review(_state: &AgentState) -> Asked {
    Ask::Done(())
}

fn main() {
    graph! { review -> END };
}

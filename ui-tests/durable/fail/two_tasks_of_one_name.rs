use agentflow::{AgentState, graph, node, task};

mod other {
    #[agentflow::task]
    pub(crate) async fn deliver() {}
}

#[task]
async fn deliver() {}

#[node]
async fn send(_state: &mut AgentState) {}

fn main() {
    let _ = graph! { send -> END; tasks { deliver, other::deliver } };
}

use agentflow::{AgentState, NodeError, graph, node};

#[node]
async fn ask(_state: &AgentState) -> Result<(), NodeError> {
    Err("no answer".into())
}

#[node]
async fn look_up(_state: &AgentState) {}

#[node]
async fn guess(_state: &AgentState) {}

fn main() {
    let _ = graph! {
        node ASK = ask { on_error: guess };
        ASK -> { look_up, guess } -> END
    };
}

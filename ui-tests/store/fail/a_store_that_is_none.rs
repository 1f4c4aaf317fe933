use agentflow::{AgentState, graph, node};

#[node]
async fn write(_state: &mut AgentState) {}

fn main() {
    let _ = graph! { name = "mail"; write -> END; compile { store: "mail.db" } };
}

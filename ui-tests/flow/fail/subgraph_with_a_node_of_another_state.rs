use agentflow::{AgentState, State, graph, node};

#[derive(Clone, State)]
struct Report {
    title: String,
}

#[node]
async fn write(state: &Report) {
    println!("{}", state.title);
}

#[node]
async fn a(_state: &AgentState) {}

fn main() {
    let _ = graph! {
        graph RESEARCH { write -> END }
        a -> RESEARCH -> END;
    };
}

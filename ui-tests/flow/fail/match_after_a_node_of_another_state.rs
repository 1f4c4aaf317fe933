use agentflow::{AgentState, State, graph, node};

#[derive(Clone, State)]
struct Report {
    title: String,
}

#[node]
async fn write(state: &Report) -> bool {
    state.title.is_empty()
}

#[node]
async fn b(_state: &AgentState) {}

fn main() {
    let _ = graph! {
        b -> write;
        write -> match { true => END, false => b };
    };
}

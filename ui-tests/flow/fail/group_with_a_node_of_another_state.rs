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

#[node]
async fn c(_state: &AgentState) {}

fn main() {
    let _ = graph! { a -> { write, c } -> END; };
}

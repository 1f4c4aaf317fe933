use agentflow::{AgentState, State, graph, node};

#[derive(Clone, State)]
struct Report {
    title: String,
}

fn titled(report: &Report) -> bool {
    report.title.is_empty()
}

#[node]
async fn a(_state: &AgentState) {}

fn main() {
    let _ = graph! { a -> match titled { true => END, false => a }; };
}

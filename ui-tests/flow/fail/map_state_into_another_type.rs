use agentflow::{AgentState, CompiledGraph, State, graph, node};

#[derive(Clone, State)]
struct Report {
    title: String,
}

#[node]
async fn write(state: &mut Report) {
    state.title.clear();
}

fn research() -> CompiledGraph<Report> {
    graph! { write -> END }
}

#[node]
async fn a(_state: &AgentState) {}

fn main() {
    let _ = graph! {
        node RESEARCH = research().map_state(
            |_: &AgentState| "title",
            |_: Report| AgentState::update(),
        );
        a -> RESEARCH -> END;
    };
}

use agentflow::{AgentState, graph, node};

#[node]
async fn b(state: &mut AgentState) {
    state.context.clear();
}

fn main() {
    let _ = graph! {
        node FIRST = bb;
        FIRST -> END;
    };
}

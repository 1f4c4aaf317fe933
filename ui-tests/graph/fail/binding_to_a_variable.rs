use agentflow::{AgentState, graph, node};

fn main() {
    let _ = graph! {
        node FIRST = value;
        FIRST -> END;
    };
}

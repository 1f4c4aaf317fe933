use agentflow::{AgentState, graph, node};

fn main() {
    let _ = graph! {
        node FIRST = ;
        FIRST -> END;
    };
}

use agentflow::{AgentState, graph};

fn main() {
    let _ = graph! {
        type State = AgentState;
        node FIRST = (1);
        FIRST -> END;
    };
}

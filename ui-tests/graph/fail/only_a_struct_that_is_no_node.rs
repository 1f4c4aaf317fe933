use agentflow::{AgentState, graph};

struct Plain;

fn main() {
    let _ = graph! {
        type State = AgentState;
        Plain -> END;
    };
    let _ = Plain;
}

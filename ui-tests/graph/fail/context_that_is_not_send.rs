use agentflow::{AgentState, graph, node};

#[node]
async fn a(state: &mut AgentState) {
    state.context.clear();
}

fn main() {
    let _ = graph! {
        a -> END;
        compile { services: std::rc::Rc::new(1) }
    };
}

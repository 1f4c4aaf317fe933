use agentflow::{AgentState, graph, node};

#[node]
async fn a(state: &mut AgentState) {
    state.context.clear();
}

fn main() {
    let _ = graph! {
        type Foo = AgentState;
        name = 1;
        a -> ;
        a a;
        node X = ;
        compile { shutdown_timeout: , 1 }
    };
}

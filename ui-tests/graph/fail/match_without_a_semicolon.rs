use agentflow::{AgentState, graph, node};

#[node]
async fn again(state: &mut AgentState) -> bool {
    state.context.is_empty()
}

fn main() {
    let _ = graph! {
        again -> match {
            true => again,
            false => END,
        }
        compile { recursion_limit: 10 }
    };
}

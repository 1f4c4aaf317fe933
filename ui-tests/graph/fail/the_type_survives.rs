use agentflow::{AgentState, RunConfig, RunError, graph, node};

#[node]
async fn a(state: &mut AgentState) {
    state.context.clear();
}

// The mistake is in the graph; the uses of the app add none.
async fn run() -> Result<(), RunError> {
    let app = graph! { a -> };
    let state: AgentState = app.invoke(AgentState::default(), RunConfig::new()).await?;
    app.clone().aclose().await;
    drop(state.context);
    Ok(())
}

fn main() {
    drop(run());
}

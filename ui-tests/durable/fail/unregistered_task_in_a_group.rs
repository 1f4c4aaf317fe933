use agentflow::{AgentState, BackgroundTaskManager, NodeError, graph, node, task};

#[task]
async fn deliver(args: String) {
    drop(args);
}

#[task]
async fn report() {}

#[node]
async fn send(_state: &AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
    if let Err(error) = task_manager.create_durable_task::<deliver>(String::new()).spawn() {
        return Err(error.into());
    }
    task_manager.create_durable_task::<report>(()).spawn()?;
    Ok(())
}

#[node]
async fn start(_state: &AgentState) {}

fn main() {
    let _ = graph! { start -> { send, BESIDE } -> END; node BESIDE = start; tasks { report } };
}

use agentflow::{AgentState, BackgroundTaskManager, NodeError, graph, node, task};

#[task]
async fn deliver(args: String) {
    drop(args);
}

#[task]
async fn report() {}

#[node]
async fn send(_state: &mut AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
    if let Err(error) = task_manager.create_durable_task::<deliver>(String::new()).spawn() {
        return Err(error.into());
    }
    task_manager.create_durable_task::<report>(()).spawn()?;
    Ok(())
}

fn main() {
    let _ = graph! { SUB -> END; graph SUB { send -> END } tasks { report } };
}

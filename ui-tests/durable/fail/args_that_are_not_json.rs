use agentflow::{AgentState, BackgroundTaskManager, graph, node, task};

struct Outgoing;

#[task]
async fn deliver(args: Outgoing) {
    drop(args);
}

#[node]
async fn send(_state: &mut AgentState, task_manager: &BackgroundTaskManager) {
    let _ = task_manager.create_durable_task::<deliver>(Outgoing).spawn();
}

// The uses of the task add no mistakes.
fn main() {
    let _ = graph! { send -> END; tasks { deliver } };
}

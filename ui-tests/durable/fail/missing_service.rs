use agentflow::{AgentState, BackgroundTaskManager, graph, node, task};

struct Smtp;

#[task]
async fn deliver(args: String, #[inject] smtp: &Smtp) {
    let _ = (args, smtp);
}

#[node]
async fn send(_state: &mut AgentState, task_manager: &BackgroundTaskManager) {
    let _ = task_manager.create_durable_task::<deliver>(String::new()).spawn();
}

fn main() {
    let _ = graph! { send -> END; tasks { deliver } };
}

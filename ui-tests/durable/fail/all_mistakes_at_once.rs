use agentflow::{AgentState, BackgroundTaskManager, graph, node, task};

#[task]
fn deliver((to, text): (String, String), #[inject] smtp: u8, confg: u8, args: String, _args: String) -> impl Sized {
    drop((to, text, smtp, confg, args, _args));
}

#[node]
async fn send(_state: &mut AgentState, task_manager: &BackgroundTaskManager) {
    let _ = task_manager.create_durable_task::<deliver>(3).spawn();
}

// The mistakes are above; the uses of the task add none.
fn main() {
    let _ = graph! { send -> END; tasks { deliver } };
}

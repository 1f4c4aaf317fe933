//! A task made of one future has a retry policy: a future that has failed cannot run again.

use agentflow::BackgroundTaskManager;

async fn send() -> Result<(), String> {
    Err("no answer".to_owned())
}

fn main() {
    let tasks = BackgroundTaskManager::new();
    let _ = tasks.create_task(send()).name("send").retry(3).spawn();
}

//! The task gets the function itself instead of its future.

use std::time::Duration;

use agentflow::BackgroundTaskManager;

async fn send() {}

fn main() {
    let tasks = BackgroundTaskManager::new();
    let _ = tasks.create_task(send).name("send").timeout(Duration::from_secs(10)).spawn();
}

//! A task made of one future has a timeout for each attempt.

use std::time::Duration;

use agentflow::BackgroundTaskManager;

fn main() {
    let tasks = BackgroundTaskManager::new();
    let _ = tasks.create_task_with_context(|task| async move { task.cancelled().await }).attempt_timeout(Duration::from_secs(1)).spawn();
}

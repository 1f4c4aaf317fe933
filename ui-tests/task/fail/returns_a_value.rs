//! A task returns a value that is no `Result`.

use agentflow::BackgroundTaskManager;

async fn count() -> u32 {
    7
}

fn main() {
    let tasks = BackgroundTaskManager::new();
    let _ = tasks.create_task(count()).name("count").spawn();
    let _ = tasks.create_task_with_context(|_| count()).name("count").spawn();
    let _ = tasks.create_blocking_task(|_| 7_u32).name("count").spawn();
}

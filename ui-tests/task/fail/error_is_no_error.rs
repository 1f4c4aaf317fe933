//! A task's `Err` holds a value that is no error.

use agentflow::BackgroundTaskManager;

struct Unexplained;

async fn send() -> Result<(), Unexplained> {
    Err(Unexplained)
}

fn main() {
    let tasks = BackgroundTaskManager::new();
    let _ = tasks.create_task(send()).name("send").spawn();
}

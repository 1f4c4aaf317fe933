//! A task keeps a value across an await that must stay on its thread.

use std::rc::Rc;

use agentflow::BackgroundTaskManager;

async fn count() {
    let shared = Rc::new(1);
    tokio::task::yield_now().await;
    drop(shared);
}

fn main() {
    let tasks = BackgroundTaskManager::new();
    let _ = tasks.create_task(count()).name("count").spawn();
}

//! An attempt returns a value that is no `Result`.

use agentflow::BackgroundTaskManager;

fn main() {
    let tasks = BackgroundTaskManager::new();
    let _ = tasks.create_retrying_task(|attempt| async move { attempt }).name("count").spawn();
}

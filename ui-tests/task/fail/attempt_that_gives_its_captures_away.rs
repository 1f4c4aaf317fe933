//! An attempt moves what the closure holds into its future: there is nothing left for the next one.

use agentflow::BackgroundTaskManager;

async fn send(text: String) -> Result<(), String> {
    Err(text)
}

fn main() {
    let tasks = BackgroundTaskManager::new();
    let text = String::from("hello");
    let _ = tasks.create_retrying_task(move |_| send(text)).name("send").spawn();
}

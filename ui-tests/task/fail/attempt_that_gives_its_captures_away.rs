//! An attempt moves the captures of the closure into its future, so the next attempt has none.

use agentflow::BackgroundTaskManager;

async fn send(text: String) -> Result<(), String> {
    Err(text)
}

fn main() {
    let tasks = BackgroundTaskManager::new();
    let text = String::from("hello");
    let _ = tasks.create_retrying_task(move |_| send(text)).name("send").spawn();
}

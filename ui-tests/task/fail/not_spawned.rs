//! A task that is built and never spawned.

#![deny(unused_must_use)]

use agentflow::BackgroundTaskManager;

fn main() {
    let tasks = BackgroundTaskManager::new();
    tasks.create_task(async {}).name("send");
}

//! The task manager alone: named tasks with timeouts, a live table, a wait, and a close with its report.
//!
//! ```console
//! $ cargo run -p agentflow-examples --example 04_without_a_graph
//! name                  age  timeout  remaining
//! send_notification    0.0s    10.0s      10.0s
//! call_webhook         0.0s        -          -
//! s3_upload            0.0s     0.7s       0.7s
//! archive              0.0s        -          -
//! keep_in_sync         0.0s        -          -
//!    sent to ada
//! name                  age  timeout  remaining
//! call_webhook         0.4s        -          -
//! s3_upload            0.4s     0.7s       0.3s
//! archive              0.4s        -          -
//! keep_in_sync         0.4s        -          -
//! name                  age  timeout  remaining
//! archive              0.8s        -          -
//! keep_in_sync         0.8s        -          -
//! 2 background tasks still run: archive #4 (for 1.4s) {"bytes":1048576}, keep_in_sync #5 (for 1.4s)
//!    sync state saved
//! closed in 303.5ms: 1 completed, 1 cancelled
//!   unfinished: archive #4 (cancelled after 1.6s) {"bytes":1048576}
//!    send_notification #1 (completed after 301.8ms) {"user":"ada"}
//!    call_webhook #2 (failed after 501.1ms): example.org answered 503
//!    s3_upload #3 (timed out after 701.8ms)
//!    archive #4 (cancelled after 1.6s) {"bytes":1048576}
//!    keep_in_sync #5 (completed after 1.7s)
//! 5 spawned: 0 active, 2 completed, 1 failed, 1 timed out, 1 cancelled
//! ```

use std::time::Duration;

use agentflow::{BackgroundTaskManager, TaskContext, task::TaskManagerOptions};
use tokio::time::sleep;

#[derive(Debug, thiserror::Error)]
#[error("{0} answered 503")]
struct Unavailable(&'static str);

async fn send_notification(user: &'static str) {
    sleep(Duration::from_millis(300)).await;
    println!("   sent to {user}");
}

async fn call_webhook(host: &'static str) -> Result<(), Unavailable> {
    sleep(Duration::from_millis(500)).await;
    Err(Unavailable(host))
}

async fn upload() {
    sleep(Duration::from_hours(1)).await;
}

/// Waits until it is cancelled, and saves its state within the grace period.
async fn keep_in_sync(task: TaskContext) {
    task.cancelled().await;
    sleep(Duration::from_millis(100)).await;
    println!("   sync state saved");
}

fn seconds(time: Option<Duration>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| format!("{:.1}s", time.as_secs_f64()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = TaskManagerOptions::new().grace_period(Duration::from_millis(500));
    let tasks = BackgroundTaskManager::with_options(options);

    tasks.create_task(send_notification("ada")).timeout(Duration::from_secs(10)).context("user", "ada").spawn()?;
    tasks.create_task(call_webhook("example.org")).spawn()?;
    tasks.create_task(upload()).name("s3_upload").timeout(Duration::from_millis(700)).spawn()?;
    tasks.create_task(upload()).name("archive").context("bytes", 1_048_576).spawn()?;
    tasks.create_task_with_context(keep_in_sync).spawn()?;

    for _ in 0..3 {
        println!("{:<18} {:>6} {:>8} {:>10}", "name", "age", "timeout", "remaining");
        for task in tasks.task_info() {
            let (age, timeout, remaining) = (Some(task.age()), task.timeout(), task.remaining());
            let [age, timeout, remaining] = [age, timeout, remaining].map(seconds);
            println!("{:<18} {age:>6} {timeout:>8} {remaining:>10}", task.name());
        }
        sleep(Duration::from_millis(400)).await;
    }

    if let Err(still) = tasks.wait_for_all(Some(Duration::from_millis(200))).await {
        println!("{still}");
    }
    println!("{}", tasks.close(Some(Duration::from_millis(200))).await);
    for end in tasks.recently_finished() {
        println!("   {end}{}", end.error().map(|error| format!(": {error}")).unwrap_or_default());
    }
    println!("{}", tasks.stats());
    Ok(())
}

//! Background tasks under load: limits on tasks in flight and on running tasks, retries, keys, progress, live events,
//! and a task that is cancelled last.
//!
//! ```console
//! $ cargo run -p agentflow-examples --example 11_under_load
//! full: 8 spawned: 8 active (4 queued); 1 rejected
//!   import #1 begins
//!   webhook #2 begins
//!   index #3 cancelled
//!   index #4 cancelled
//!   index #5 begins
//!   email #6 begins
//!   email #6 completed
//!   webhook #2 again in 20ms (attempt 1: no answer)
//!   import #1 20 % importing
//! a slot got free: 9 spawned: 6 active (2 queued), 1 completed, 2 cancelled; 1 rejected
//!   email #7 begins
//!   email #7 completed
//!   email #8 begins
//!   email #8 completed
//!   indexed "agent"
//!   email #9 begins
//!   index #5 completed
//!   email #9 completed
//!   import #1 40 % importing
//!   webhook #2 again in 40ms (attempt 2: no answer)
//!   import #1 60 % importing
//!   import #1 80 % importing
//!   webhook #2 completed
//!   import #1 100 % importing
//!   import #1 completed
//!   flush #10 begins
//!   stuck #11 begins
//!   stuck #11 cancelled
//!   flushed, after all other tasks
//!   flush #10 completed
//! closed in 51.9ms: 1 completed, 1 cancelled
//!   unfinished: stuck #11 (cancelled after 51.4ms)
//! ```

use std::time::Duration;

use agentflow::{
    BackgroundTaskManager, RetryPolicy, TaskContext,
    task::{OnDuplicateKey, SpawnError, TaskEvent, TaskManagerOptions},
};
use tokio::time::sleep;

const TICK: Duration = Duration::from_millis(50);

/// Reports its progress, which also resets the idle timeout.
async fn import(task: TaskContext) {
    for row in 1..=5 {
        sleep(TICK).await;
        task.progress(f64::from(row) / 5.0, "importing");
    }
}

/// Succeeds in the third attempt.
async fn call_webhook(attempt: u32) -> Result<(), String> {
    sleep(TICK).await;
    if attempt < 3 { Err(format!("attempt {attempt}: no answer")) } else { Ok(()) }
}

fn line(event: &TaskEvent) -> Option<String> {
    Some(match event {
        TaskEvent::Started(task) => format!("{} #{} begins", task.name(), task.id()),
        TaskEvent::AttemptFailed { task, error, retry_in, .. } => {
            format!("{} #{} again in {retry_in:?} ({error})", task.name(), task.id())
        }
        TaskEvent::Progress(task) => format!("{} #{} {}", task.name(), task.id(), task.progress()?),
        TaskEvent::Ended(end) => format!("{} #{} {}", end.name(), end.id(), end.outcome()),
        TaskEvent::Missed(count) => format!("({count} events missed)"),
        _ => return None,
    })
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = TaskManagerOptions::new()
        .max_tasks(6) // queued tasks count as in flight
        .max_running(4)
        .max_running_named("email", 1);
    let tasks = BackgroundTaskManager::with_options(options);

    let mut events = tasks.events();
    let watcher = tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if let Some(line) = line(&event) {
                println!("  {line}");
            }
        }
    });

    // The task times out after two seconds without progress or a heartbeat.
    tasks.create_task_with_context(import).name("import").idle_timeout(Duration::from_secs(2)).spawn()?;

    tasks
        .create_retrying_task(call_webhook)
        .name("webhook")
        .retry(RetryPolicy::new(5).backoff(Duration::from_millis(20)))
        .attempt_timeout(Duration::from_secs(1))
        .timeout(Duration::from_secs(30))
        .spawn()?;

    // A user types: each new text replaces the task of the previous one, and no two of them run at once.
    for text in ["a", "ag", "agent"] {
        let index = async move {
            sleep(TICK).await;
            println!("  indexed {text:?}");
        };
        tasks.create_task(index).name("index").key("user-7", OnDuplicateKey::Replace).spawn()?;
    }

    // Beside the import, the webhook and the index there are three free slots, and emails run one at a time. The fourth
    // email is refused, or waits for a slot with `spawn_wait`.
    let email = || tasks.create_task(sleep(TICK)).name("email");
    for _ in 0..3 {
        email().spawn()?;
    }
    if let Err(SpawnError::Full) = email().spawn() {
        println!("full: {}", tasks.stats());
        email().spawn_wait().await?;
        println!("a slot got free: {}", tasks.stats());
    }
    tasks.wait_for_all(None).await?;

    // This task flushes the log of all others, so it is cancelled last.
    let flush = |task: TaskContext| async move {
        task.cancelled().await;
        println!("  flushed, after all other tasks");
    };
    tasks.create_task_with_context(flush).name("flush").cancel_last().spawn()?;
    tasks.create_task(std::future::pending::<()>()).name("stuck").spawn()?;
    let report = tasks.close(Some(TICK)).await;
    watcher.await?;
    println!("{report}");
    Ok(())
}

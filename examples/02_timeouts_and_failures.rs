//! Background tasks that hang, fail and panic, and the places where each outcome is reported.
//!
//! Prints one log line for each task that did not complete, then the counts, the report of a shutdown that has to
//! cancel a task, and the finished tasks.
//!
//! ```text
//! cargo run -p agentflow-examples --example 02_timeouts_and_failures
//! ```

use std::{future::pending, io::IsTerminal, time::Duration};

use agentflow::{AgentState, BackgroundTaskManager, NodeError, RunConfig, graph, node};
use tokio::time::sleep;

#[derive(Debug, thiserror::Error)]
#[error("the store refused the report")]
struct StoreError(#[source] std::io::Error);

async fn save_report() -> Result<(), StoreError> {
    sleep(Duration::from_millis(50)).await;
    Err(StoreError(std::io::Error::other("the disk is full")))
}

async fn render_chart(points: Vec<f64>) {
    sleep(Duration::from_millis(100)).await;
    assert!(!points.is_empty(), "a chart needs at least one point");
}

#[node]
async fn start(config: &RunConfig, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
    let user = config.user_id().unwrap_or("anon");
    task_manager.create_task(async { println!("notification sent") }).name("send_notification").spawn()?;
    task_manager
        .create_task(pending::<()>()) // a server that never answers
        .name("call_webhook")
        .timeout(Duration::from_millis(200))
        .context("user", user)
        .spawn()?;
    task_manager.create_task(save_report()).name("save_report").context("user", user).spawn()?;
    task_manager.create_task(render_chart(Vec::new())).name("render_chart").spawn()?;
    // This task has no timeout, so only the shutdown ends it.
    task_manager.create_task(pending::<()>()).name("watch_inbox").spawn()?;
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .without_time()
        .with_ansi(std::io::stdout().is_terminal())
        .with_max_level(tracing::Level::WARN)
        .init();
    // The manager logs a panic with its task's name and context; the default hook would print it again.
    std::panic::set_hook(Box::new(|_| {}));

    let app = graph! {
        type State = AgentState;
        start -> END;
        compile { shutdown_timeout: 200ms }
    };
    let config = RunConfig::new().with_user_id("ada");
    app.invoke(AgentState::default(), config).await?;

    let tasks = app.task_manager();
    if let Err(still_running) = tasks.wait_for_all(Some(Duration::from_millis(500))).await {
        println!("\n{still_running}");
    }
    println!("\n{}", tasks.stats());

    println!("\n{}", app.aclose().await);

    println!("\nfinished tasks:");
    for end in tasks.recently_finished() {
        println!("  {end}{}", end.error().map(|error| format!(": {error}")).unwrap_or_default());
    }
    Ok(())
}

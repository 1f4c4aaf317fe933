//! The program of the README: a node answers at once, and a background task outlives the answer.
//!
//! ```console
//! $ cargo run -p agentflow-examples --example 00_first_program
//! answer: Your report is being processed in the background.
//! still running: send_notification #1 (for 0.0s)
//! notification to ada: Report ready soon
//! shut down in 501.1ms
//!   runs:  0 ended meanwhile, 0 unfinished, 0 still running
//!   tasks: closed in 501.1ms: 1 completed
//! ```

use std::time::Duration;

use agentflow::{AgentState, BackgroundTaskManager, Message, NodeError, RunConfig, graph, node};
use tokio::time::sleep;

async fn send_notification(user: String, text: &'static str) {
    sleep(Duration::from_millis(500)).await; // slow IO
    println!("notification to {user}: {text}");
}

#[node(MAIN)]
async fn my_node(
    state: &mut AgentState,
    config: &RunConfig,
    task_manager: &BackgroundTaskManager,
) -> Result<(), NodeError> {
    state.context.push(Message::assistant("Your report is being processed in the background."));
    let user = config.user_id().unwrap_or("anon").to_owned();
    task_manager
        .create_task(send_notification(user, "Report ready soon"))
        .name("send_notification")
        .timeout(Duration::from_secs(10))
        .spawn()?;
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let app = graph! { MAIN -> END; compile { shutdown_timeout: 30s } };
    let state = app.invoke(AgentState::default(), RunConfig::new().with_user_id("ada")).await?;
    println!("answer: {}", state.context[0].text());
    for task in app.task_manager().task_info() {
        println!("still running: {task}");
    }
    println!("{}", app.aclose().await); // waits up to 30 s for send_notification
    Ok(())
}

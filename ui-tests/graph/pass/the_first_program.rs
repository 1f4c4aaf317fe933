#![deny(warnings)]

use std::time::Duration;

use agentflow::{AgentState, BackgroundTaskManager, Message, NodeError, RunConfig, graph, node};

async fn send_notification(user: String, text: &'static str) {
    assert_eq!((&*user, text), ("ada", "Report ready soon"));
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
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let app = graph! { MAIN -> END; compile { shutdown_timeout: 30s } };
    let state = app.invoke(AgentState::default(), RunConfig::new().with_user_id("ada")).await?;
    app.aclose().await; // waits up to 30 s for send_notification

    assert_eq!(state.context[0].text(), "Your report is being processed in the background.");
    let stats = app.task_manager().stats();
    assert_eq!((stats.spawned, stats.outcomes.completed), (1, 1));
    Ok(())
}

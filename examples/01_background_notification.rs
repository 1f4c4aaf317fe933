//! A node answers at once and spawns three background tasks.
//!
//! Prints the answer, the table of live tasks as it empties, and the report of the shutdown. Takes three seconds.
//!
//! ```text
//! cargo run -p agentflow-examples --example 01_background_notification
//! ```

use std::time::Duration;

use agentflow::{AgentState, BackgroundTaskManager, Message, NodeError, RunConfig, graph, node};
use tokio::time::{Instant, sleep};

async fn send_notification(user: String, text: &'static str) {
    sleep(Duration::from_millis(500)).await; // slow IO
    println!("        -> notification to {user}: {text}");
}

async fn call_webhook(url: &'static str) -> std::io::Result<()> {
    sleep(Duration::from_millis(1_300)).await;
    println!("        -> POST {url}");
    Ok(())
}

async fn upload_report(pages: u32) -> std::io::Result<()> {
    sleep(Duration::from_millis(2_800)).await;
    println!("        -> {pages} pages uploaded");
    Ok(())
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
        .create_task(send_notification(user.clone(), "Report ready soon"))
        .name("send_notification")
        .timeout(Duration::from_secs(10))
        .context("user", user)
        .spawn()?;
    task_manager
        .create_task(call_webhook("https://example.com/hooks/report"))
        .name("call_webhook")
        .timeout(Duration::from_secs(5))
        .spawn()?;
    task_manager.create_task(upload_report(12)).name("upload_report").timeout(Duration::from_secs(30)).spawn()?;
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let app = graph! { MAIN -> END; compile { shutdown_timeout: 30s } };

    let began = Instant::now();
    let config = RunConfig::new().with_user_id("ada");
    let state = app.invoke(AgentState::default(), config).await?;
    let answer = state.last_message().map(Message::text).unwrap_or_default();
    println!("answered in {:.1?}: {answer}", began.elapsed());

    let tasks = app.task_manager();
    while tasks.task_count() > 1 {
        print_table(began, tasks);
        sleep(Duration::from_millis(400)).await;
    }

    println!("\naclose() waits for what is left:");
    for task in tasks.task_info() {
        println!("        {task}");
    }
    println!("{}", app.aclose().await);

    println!("\nfinished tasks:");
    for end in tasks.recently_finished() {
        println!("        {end}");
    }
    Ok(())
}

fn print_table(began: Instant, tasks: &BackgroundTaskManager) {
    let now = began.elapsed().as_secs_f64();
    println!("\n  {now:.1}s  task               age    timeout  remaining");
    for task in tasks.task_info() {
        let seconds = |time: Option<Duration>| match time {
            Some(time) => format!("{:.1}s", time.as_secs_f64()),
            None => "-".to_owned(),
        };
        println!(
            "        {:<17} {:>5} {:>9} {:>10}",
            task.name(),
            seconds(Some(task.age())),
            seconds(task.timeout()),
            seconds(task.remaining()),
        );
    }
}

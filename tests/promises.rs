//! The promises of the guide to background tasks that are about apps. Those about the task manager alone are tested
//! with the manager.

use std::{future::pending, time::Duration};

use agentflow::{
    AgentState, BackgroundTaskManager, Message, NodeError, RunConfig, RunId, graph, node, run::RunErrorKind,
    task::SpawnError,
};
use tokio::time::{Instant, sleep};
use tracing::Level;

use crate::{
    steps::{Counter, step},
    support::capture,
};

const SECOND: Duration = Duration::from_secs(1);

/// The guide's node: it answers, and spawns a task that takes three seconds.
#[node(MAIN)]
async fn my_node(
    state: &mut AgentState,
    config: &RunConfig,
    task_manager: &BackgroundTaskManager,
) -> Result<(), NodeError> {
    state.context.push(Message::assistant("in the background"));
    let user = config.user_id().unwrap_or("anon").to_owned();
    task_manager
        .create_task(sleep(3 * SECOND))
        .name("send_notification")
        .timeout(10 * SECOND)
        .context("user", user)
        .spawn()?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn promise_01_a_node_receives_the_task_manager_of_its_app() {
    let app = graph! { MAIN -> END };
    app.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    let tasks = app.task_manager().task_info();
    assert_eq!(tasks.len(), 1);
    assert_eq!(tasks[0].name(), "send_notification");
}

#[tokio::test(start_paused = true)]
async fn promise_02_the_answer_returns_at_once_and_the_task_continues() {
    let app = graph! { MAIN -> END };
    let began = Instant::now();
    let state = app.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(state.last_message().unwrap().text(), "in the background");
    assert_eq!(app.task_manager().task_count(), 1);

    app.task_manager().wait_for_all(None).await.unwrap();
    assert_eq!(app.task_manager().stats().outcomes.completed, 1);
    assert_eq!(app.task_manager().recently_finished()[0].age(), 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn promise_04_a_task_carries_its_run_its_node_and_its_context() {
    #[node]
    async fn upload(task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
        task_manager
            .create_task(async {
                sleep(SECOND).await;
                Err::<(), _>("the bucket is gone")
            })
            .name("s3_upload")
            .context("bucket", "reports")
            .spawn()?;
        Ok(())
    }

    let (log, _guard) = capture();
    let run = RunId::new();
    let app = graph! { type State = AgentState; upload -> END };
    app.invoke(AgentState::default(), RunConfig::new().with_run_id(run)).await.unwrap();

    let running = &app.task_manager().task_info()[0];
    let origin = running.origin().unwrap();
    assert_eq!((origin.run(), origin.node()), (run, "upload"));
    assert_eq!(running.context().collect::<Vec<_>>(), [("bucket", &"reports".into())]);

    app.task_manager().wait_for_all(None).await.unwrap();
    let ended = &app.task_manager().recently_finished()[0];
    assert_eq!(ended.origin(), running.origin());

    let line = &log.ends()[0];
    assert_eq!(line.level, Level::ERROR);
    assert_eq!(line.field("name"), "s3_upload");
    assert_eq!(line.field("run"), run.to_string());
    assert_eq!(line.field("node"), "upload");
    assert_eq!(line.field("context"), r#"{"bucket":"reports"}"#);
    assert_eq!(line.field("error"), "the bucket is gone");
}

#[tokio::test(start_paused = true)]
async fn promise_04_a_child_of_a_nodes_task_carries_the_same_run_and_node() {
    let app = graph! {
        type State = AgentState;
        node PARENT = (step(|given| async move {
            given.tasks.create_task_with_context(|task| async move {
                task.manager().create_task(pending::<()>()).name("child").spawn().map(drop)
            }).spawn()?;
            Ok(())
        }));
        PARENT -> END
    };
    let run = RunId::new();
    app.invoke(AgentState::default(), RunConfig::new().with_run_id(run)).await.unwrap();
    // The parent ends, and the child is the only task left.
    app.task_manager().wait_for_all(Some(SECOND)).await.unwrap_err();
    let tasks = app.task_manager().task_info();
    let origin = tasks[0].origin().unwrap();
    assert_eq!(tasks[0].name(), "child");
    assert_eq!((origin.run(), origin.node()), (run, "PARENT"));
    drop(app.stop().await);
}

#[tokio::test(start_paused = true)]
async fn promise_08_aclose_waits_up_to_the_shutdown_timeout() {
    let app = graph! { MAIN -> END; compile { shutdown_timeout: 30s } };
    app.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    let began = Instant::now();
    let report = app.aclose().await;
    assert_eq!(began.elapsed(), 3 * SECOND);
    assert_eq!(report.tasks.outcomes.completed, 1);
    assert!(report.tasks.is_clean());
}

#[tokio::test(start_paused = true)]
async fn promise_08_aclose_cancels_and_names_tasks_that_take_longer() {
    let app = graph! { MAIN -> END; compile { shutdown_timeout: 2s } };
    app.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    let began = Instant::now();
    let report = app.aclose().await;
    assert_eq!(began.elapsed(), 2 * SECOND);
    assert_eq!((report.tasks.outcomes.completed, report.tasks.outcomes.cancelled), (0, 1));
    assert_eq!(report.tasks.unfinished[0].name(), "send_notification");
    assert_eq!(app.task_manager().task_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn promise_09_stop_shuts_the_manager_down_at_once() {
    let app = graph! { MAIN -> END };
    app.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    let began = Instant::now();
    let report = app.stop().await;
    assert!(began.elapsed() < SECOND);
    assert_eq!(report.tasks.unfinished[0].name(), "send_notification");
    assert_eq!(app.task_manager().task_count(), 0);

    let refused = app.task_manager().create_task(async {}).spawn().unwrap_err();
    assert_eq!(refused, SpawnError::Closed);
    let refused = app.invoke(AgentState::default(), RunConfig::new()).await.unwrap_err();
    assert!(matches!(refused.kind(), RunErrorKind::Closed));
}

#[test]
fn promise_10_a_task_manager_exists_wherever_the_graph_was_compiled() {
    // The promise also holds outside of a runtime.
    let app = graph! { MAIN -> END };
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    for completed in 1..=2 {
        runtime().block_on(async {
            app.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
            app.task_manager().wait_for_all(None).await.unwrap();
        });
        assert_eq!(app.task_manager().stats().outcomes.completed, completed);
    }
}

#[tokio::test(start_paused = true)]
async fn promise_12_dropping_the_app_cancels_and_names_its_tasks() {
    let (log, _guard) = capture();
    let dropped = Counter::default();
    let guard = dropped.clone();
    let app = graph! {
        type State = AgentState;
        node UPLOAD = (step(move |given| {
            let guard = guard.on_drop();
            async move {
                given.tasks.create_task(async move {
                    let _guard = guard;
                    pending::<()>().await;
                }).name("slow_upload").spawn()?;
                Ok(())
            }
        }));
        UPLOAD -> END
    };
    let clone = app.clone();
    app.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    drop(app);
    tokio::task::yield_now().await;
    assert_eq!(dropped.get(), 0, "a clone is the same app, and holds it");

    drop(clone);
    sleep(SECOND).await;
    assert_eq!(dropped.get(), 1);
    let line = log.event("the task manager was dropped without being closed");
    assert_eq!(line.level, Level::WARN);
    assert_eq!(line.field("tasks"), "slow_upload #1");
}

#[tokio::test(start_paused = true)]
async fn promise_12_dropping_a_closed_app_logs_nothing() {
    let (log, _guard) = capture();
    let app = graph! { MAIN -> END; compile { shutdown_timeout: 1s } };
    app.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    drop(app.aclose().await);
    drop(app);
    assert!(log.events("the task manager was dropped").is_empty());
}

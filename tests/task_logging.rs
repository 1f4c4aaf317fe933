//! Log lines of tasks: one line per end, with all fields.

use std::{future::pending, sync::Arc, time::Duration};

use agentflow::{
    BackgroundTaskManager,
    task::{OnDuplicateKey, TaskEvent, TaskManagerOptions},
};
use tokio::time::sleep;
use tracing::{Instrument, Level, info_span};

use crate::support::{capture, settle};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn every_outcome_has_one_line_at_its_level() {
    let (log, _guard) = capture();
    let tasks = BackgroundTaskManager::new();
    tasks.create_task(async {}).name("completed").spawn().unwrap();
    tasks.create_task(async { Err::<(), _>("no route") }).name("failed").spawn().unwrap();
    tasks.create_task(async { panic!("boom") }).name("panicked").spawn().unwrap();
    tasks.create_task(pending::<()>()).name("timed_out").timeout(SECOND).spawn().unwrap();
    tasks.create_task(pending::<()>()).name("cancelled").spawn().unwrap().cancel();
    drop(tasks.create_task(pending::<()>()).name("aborted").spawn().unwrap().abort_on_drop());
    tasks.wait_for_all(None).await.unwrap();

    let lines = log.ends();
    assert_eq!(lines.len(), 6);
    for line in lines {
        let expected = match line.field("name") {
            "failed" | "panicked" => Level::ERROR,
            "timed_out" => Level::WARN,
            _ => Level::DEBUG,
        };
        assert_eq!(line.level, expected, "{line:?}");
        assert_eq!(line.field("outcome"), line.field("name"));
        assert_eq!(line.within, ["agentflow.task"]);
        let error = match line.field("name") {
            "failed" => "no route",
            "panicked" => "boom",
            _ => "",
        };
        assert_eq!(line.field("error"), error);
    }
}

#[tokio::test(start_paused = true)]
async fn promise_04_the_context_is_logged_on_errors() {
    let (log, _guard) = capture();
    let tasks = BackgroundTaskManager::new();
    let work = async {
        sleep(2 * SECOND).await;
        Err::<(), _>("bucket is gone")
    };
    let builder = tasks.create_task(work).name("s3_upload").timeout(30 * SECOND);
    builder.context("run_id", "r-1").context("bytes", 7).spawn().unwrap().await.unwrap_err();
    let line = log.ends().remove(0);
    assert_eq!(line.field("name"), "s3_upload");
    assert_eq!(line.field("id"), "1");
    assert_eq!(line.field("age"), "2s");
    assert_eq!(line.field("timeout"), "30s");
    assert_eq!(line.field("context"), r#"{"run_id":"r-1","bytes":7}"#);
    assert_eq!(line.field("error"), "bucket is gone");
    assert_eq!(line.field("message"), "background task failed");
    assert!(!line.fields.contains_key("run"), "no run, no field");
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_and_the_end_are_logged_with_the_tasks_key() {
    let (log, _guard) = capture();
    let tasks = BackgroundTaskManager::new();
    let second = |attempt| async move { if attempt < 2 { Err("busy") } else { Ok(()) } };
    tasks.create_retrying_task(second).retry(1).key("user-7", OnDuplicateKey::Skip).spawn().unwrap().await.unwrap();
    tasks.create_retrying_task(second).retry(1).spawn().unwrap().await.unwrap();
    let failed = log.events("background task failed, and will be tried again");
    let ended = log.events("background task completed");
    for lines in [failed, ended] {
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].field("key"), "user-7");
        assert!(!lines[1].fields.contains_key("key"), "no key, no field");
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_for_a_name_that_no_task_has_is_logged_once() {
    let limited = || {
        let options = TaskManagerOptions::new().max_running_named("send-email", 1).max_running_named("import", 1);
        BackgroundTaskManager::with_options(options.max_running_named("refund", 1))
    };
    let (log, _guard) = capture();
    let unused = || {
        let mut lines = log.events("no background task had the name that `max_running_named` limits");
        lines.sort_by(|a, b| a.field("name").cmp(b.field("name")));
        lines
    };
    let tasks = limited();
    for _ in 0..3 {
        tasks.create_task(async {}).name("send_email").spawn().unwrap();
        tasks.create_task(async {}).name("import").spawn().unwrap();
    }
    tasks.wait_for_all(None).await.unwrap();
    assert!(unused().is_empty(), "until the close, such a task may still come");
    tasks.close(None).await;
    tasks.close(None).await;
    drop(tasks);
    let lines = unused();
    assert_eq!(lines.len(), 2);
    assert_eq!((lines[0].field("name"), lines[0].level), ("refund", Level::WARN));
    assert!(!lines[0].fields.contains_key("did_you_mean"));
    assert_eq!((lines[1].field("name"), lines[1].field("did_you_mean")), ("send-email", "send_email"));

    // A manager without a single task was not used at all.
    limited().close(None).await;
    assert_eq!(unused().len(), 2);

    // Dropping the manager closes it too, and a task that still runs has its name.
    let tasks = limited();
    tasks.create_task(pending::<()>()).name("refunds").spawn().unwrap();
    drop(tasks);
    assert_eq!(unused().iter().filter(|line| line.fields.contains_key("did_you_mean")).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_error_is_logged_with_its_sources() {
    let (log, _guard) = capture();
    let tasks = BackgroundTaskManager::new();
    let error = anyhow::anyhow!("connection reset").context("sending").context("notifying ada");
    tasks.create_task(async { Err::<(), _>(error) }).spawn().unwrap().await.unwrap_err();
    assert_eq!(log.ends()[0].field("error"), "notifying ada: sending: connection reset");
}

#[tokio::test(start_paused = true)]
async fn a_tasks_span_is_a_root_that_follows_its_spawner() {
    let (log, _guard) = capture();
    let tasks = BackgroundTaskManager::new();
    async {
        tasks.create_task(async { tracing::info!(target: "agentflow::task", "inside") }).name("t").spawn().unwrap();
    }
    .instrument(info_span!("node"))
    .await;
    settle().await;
    let span = log.spans("agentflow.task").remove(0);
    assert_eq!((span.field("name"), span.field("id")), ("t", "1"));
    assert!(span.within.is_empty(), "a root of its own");
    assert_eq!(span.follows, ["node"]);
    let inside = log.ends().into_iter().find(|line| line.field("message") == "inside").unwrap();
    assert_eq!(inside.within, ["agentflow.task"]);
}

#[tokio::test(start_paused = true)]
async fn the_log_line_is_written_before_the_wait_returns() {
    let (log, _guard) = capture();
    let tasks = BackgroundTaskManager::new();
    let handle = tasks.create_task(sleep(SECOND)).spawn().unwrap();
    handle.await.unwrap();
    assert_eq!(log.ends().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_panicking_subscriber_does_not_affect_a_tasks_end() {
    struct Broken;
    impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Broken {
        fn on_event(&self, _: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
            panic!("the disk is full");
        }
    }
    use tracing_subscriber::layer::SubscriberExt;
    let subscriber = tracing_subscriber::registry().with(Broken);
    let _guard = tracing::subscriber::set_default(subscriber);
    let tasks = BackgroundTaskManager::new();
    tasks.create_task(async {}).spawn().unwrap();
    tasks.wait_for_all(None).await.unwrap();
    assert_eq!((tasks.stats().outcomes.completed, tasks.stats().active), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn promise_12_dropping_the_manager_cancels_its_tasks_and_names_them() {
    let (log, _guard) = capture();
    let tasks = BackgroundTaskManager::new();
    let upload = tasks.create_task(pending::<()>()).name("upload").spawn().unwrap();
    let listens = |task: agentflow::TaskContext| async move { task.cancelled().await };
    let sync = tasks.create_task_with_context(listens).name("sync").spawn().unwrap();
    settle().await;
    let clone = tasks.clone();
    drop(tasks);
    settle().await;
    assert!(!upload.is_finished(), "a clone is an owner");
    drop(clone);
    assert_eq!(upload.await.unwrap_err().outcome(), agentflow::task::TaskOutcome::Cancelled);
    sync.await.unwrap();

    let lines = log.ends();
    let warnings: Vec<_> = lines.iter().filter(|line| line.level == Level::WARN).collect();
    assert_eq!(warnings.len(), 1);
    assert_eq!((warnings[0].field("count"), warnings[0].field("tasks")), ("2", "upload #1, sync #2"));
}

#[tokio::test(start_paused = true)]
async fn dropping_an_idle_or_closed_manager_logs_nothing() {
    let (log, _guard) = capture();
    drop(BackgroundTaskManager::new());
    let tasks = BackgroundTaskManager::new();
    tasks.create_task(pending::<()>()).spawn().unwrap();
    tasks.close(Some(Duration::ZERO)).await;
    drop(tasks);
    assert!(log.ends().iter().all(|line| line.level == Level::DEBUG));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_task_is_not_reported_as_lost_when_the_manager_is_dropped() {
    let (log, _guard) = capture();
    let tasks = BackgroundTaskManager::new();
    let handle = tasks.create_task_with_context(|_| pending::<()>()).spawn().unwrap();
    handle.cancel();
    settle().await;
    drop(tasks);
    handle.await.unwrap_err();
    assert!(log.ends().iter().all(|line| line.level == Level::DEBUG));
}

/// Panics when a task's span is opened, which is after the task is counted and before it starts.
struct NoSpans;

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for NoSpans {
    fn on_new_span(
        &self,
        span: &tracing::span::Attributes<'_>,
        _: &tracing::span::Id,
        _: tracing_subscriber::layer::Context<'_, S>,
    ) {
        assert_ne!(span.metadata().name(), "agentflow.task", "no room for spans");
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_panics_at_a_spawn_leaves_the_task_alone() {
    use tracing_subscriber::layer::SubscriberExt;
    let (held, tasks) = (Arc::new(()), BackgroundTaskManager::with_options(TaskManagerOptions::new().max_tasks(1)));
    let mut events = tasks.events();
    for _ in 0..2 {
        let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(NoSpans));
        let its = Arc::clone(&held);
        tasks.create_task(async move { drop(its) }).key("k", OnDuplicateKey::Skip).spawn().unwrap().await.unwrap();
    }
    assert_eq!(Arc::strong_count(&held), 1, "its future is gone");
    tasks.close(None).await;
    let mut seen = Vec::new();
    while let Some(event) = events.next().await {
        seen.push(match event {
            TaskEvent::Spawned(task) => format!("{} spawned", task.id()),
            TaskEvent::Started(task) => format!("{} started", task.id()),
            TaskEvent::Ended(end) => format!("{} {}", end.id(), end.outcome()),
            other => format!("{other:?}"),
        });
    }
    assert_eq!(seen, ["1 spawned", "1 started", "1 completed", "2 spawned", "2 started", "2 completed"]);
}

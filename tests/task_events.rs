//! Task events in a run's stream.

use std::sync::Mutex;

use agentflow::{
    AgentState, BackgroundTaskManager, EventWriter, NodeError, RunConfig, TaskContext, graph, node,
    run::{EventKind, RunStream},
    task::SpawnError,
};
use tokio::sync::{Notify, oneshot};

use crate::support::settle;

static GO: Notify = Notify::const_new();

#[node]
async fn starts(_state: &mut AgentState, task_manager: &BackgroundTaskManager) -> Result<(), SpawnError> {
    let quick = task_manager.create_task(async {}).name("quick").spawn()?;
    task_manager.create_task(GO.notified()).name("slow").spawn()?;
    let _ = quick.await;
    Ok(())
}

fn tasks_of_run(kinds: &[EventKind]) -> Vec<String> {
    let told = kinds.iter().filter_map(|kind| match kind {
        EventKind::TaskStarted { node, task, .. } => Some(format!("{node} started {task}")),
        EventKind::TaskEnded { node, task, outcome, .. } => Some(format!("{node}'s {task} {outcome}")),
        _ => None,
    });
    told.collect()
}

/// Reads a run to its end.
async fn kinds_of(mut run: RunStream<AgentState>) -> Vec<EventKind> {
    let mut kinds = Vec::new();
    while let Some(event) = run.next().await {
        kinds.push(event.kind);
    }
    kinds
}

#[tokio::test(start_paused = true)]
async fn a_stream_reports_tasks_that_start_and_end_during_the_run() {
    let app = graph! { starts -> END };
    let mut run = app.stream(AgentState::default(), RunConfig::new());
    let mut kinds = Vec::new();
    while let Some(event) = run.next().await {
        kinds.push(event.kind);
    }
    assert_eq!(tasks_of_run(&kinds), ["starts started quick", "starts started slow", "starts's quick completed"]);
    assert!(matches!(kinds.last(), Some(EventKind::RunEnded { error: None, .. })));

    // The end of a run is its last event, so a task that ends later is not reported.
    GO.notify_one();
    assert_eq!(app.aclose().await.tasks.outcomes.completed, 1);
    assert_eq!(run.next().await, None);
}

#[node]
async fn waits(_state: &mut AgentState, task_manager: &BackgroundTaskManager) -> Result<(), SpawnError> {
    task_manager.create_task(std::future::pending::<()>()).name("long").spawn()?;
    std::future::pending().await
}

#[tokio::test(start_paused = true)]
async fn no_events_are_kept_for_a_dropped_reader() {
    let app = graph! { waits -> END };
    let mut run = app.stream(AgentState::default(), RunConfig::new());
    while !matches!(run.next().await.map(|event| event.kind), Some(EventKind::TaskStarted { .. })) {}
    drop(run);
    // The run is cancelled; its task continues and ends without a reader.
    let report = app.stop().await;
    assert_eq!((report.runs.still_running.len(), report.tasks.outcomes.cancelled), (0, 1));
}

/// More task events than a stream keeps for a slow reader.
const MANY: usize = 2_000;

#[node]
async fn starts_many(_state: &mut AgentState, task_manager: &BackgroundTaskManager) -> Result<(), SpawnError> {
    for _ in 0..MANY {
        task_manager.create_task(async {}).spawn()?;
    }
    let _ = task_manager.wait_for_all(None).await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_receives_the_number_of_missed_task_events() {
    let app = graph! { starts_many -> END };
    let mut run = app.stream(AgentState::default(), RunConfig::new());
    let (mut told, mut missed) = (0, 0);
    while let Some(event) = run.next().await {
        match event.kind {
            EventKind::TaskStarted { .. } | EventKind::TaskEnded { .. } => told += 1,
            EventKind::TasksMissed { count, .. } => missed += count,
            _ => {}
        }
    }
    // All tasks are spawned before the reader is polled.
    assert!(missed > 900, "{missed}");
    assert_eq!(told + missed, 2 * MANY as u64);
}

fn progress_of(kinds: &[EventKind]) -> Vec<String> {
    let told = kinds.iter().filter_map(|kind| match kind {
        EventKind::TaskProgress { node, task, fraction, message, .. } => {
            Some(format!("{node}'s {task} at {fraction}: {message}"))
        }
        EventKind::TaskEnded { .. } => Some("end".to_owned()),
        _ => None,
    });
    told.collect()
}

/// The context of a task that has ended.
static ENDED: Mutex<Option<TaskContext>> = Mutex::new(None);

#[node]
async fn reports(_state: &mut AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
    let work = |task: TaskContext| async move {
        task.progress(0.5, "half");
        TaskContext::current().unwrap().progress(2.0, "all");
        *ENDED.lock().unwrap() = Some(task);
    };
    task_manager.create_task_with_context(work).name("work").spawn()?.await?;
    if let Some(task) = ENDED.lock().unwrap().take() {
        task.progress(0.1, "too late");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_stream_reports_the_progress_of_tasks_until_their_end() {
    let app = graph! { graph SUB { reports -> END } SUB -> END };
    for run in [
        app.stream(AgentState::default(), RunConfig::new()),
        app.clone().erase().stream(AgentState::default(), RunConfig::new()),
    ] {
        let kinds = kinds_of(run).await;
        assert_eq!(
            progress_of(&kinds),
            ["SUB/reports's work at 0.5: half", "SUB/reports's work at 1: all", "end"],
            "{kinds:?}"
        );
        assert!(!kinds.iter().any(|kind| matches!(kind, EventKind::TasksMissed { .. })));
    }
}

/// Reports more progress than a stream keeps for a slow reader.
#[node]
async fn reports_much(_state: &mut AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
    let work = |task: TaskContext| async move {
        for n in 0..MANY {
            task.progress(0.5, n.to_string());
        }
    };
    task_manager.create_task_with_context(work).spawn()?.await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_does_not_slow_a_task_that_reports_progress() {
    let app = graph! { reports_much -> END };
    let run = app.stream(AgentState::default(), RunConfig::new());
    // Nothing is read.
    app.task_manager().wait_for_all(None).await.unwrap();
    settle().await;
    assert_eq!(app.task_manager().stats().outcomes.completed, 1);

    let kinds = kinds_of(run).await;
    let missed = kinds.iter().find_map(|kind| match kind {
        EventKind::TasksMissed { count, .. } => Some(*count),
        _ => None,
    });
    let told = progress_of(&kinds);
    assert_eq!(told.len() as u64 - 1 + missed.unwrap(), MANY as u64);
    assert_eq!(told.last().unwrap(), "end", "the end of a task has room behind its progress");
    assert!(kinds.len() < 70, "{}", kinds.len());
}

static LATE: Notify = Notify::const_new();

/// Lends its writer to a task that outlives the run.
#[node]
async fn lends(
    _state: &mut AgentState,
    task_manager: &BackgroundTaskManager,
    events: &EventWriter,
) -> Result<(), NodeError> {
    let events = events.clone();
    let (written, is_written) = oneshot::channel();
    let work = async move {
        events.emit("early", "from the task").await;
        let _ = written.send(());
        LATE.notified().await;
        for n in 0..200 {
            events.emit("late", n).await;
        }
    };
    task_manager.create_task(work).name("speaker").spawn()?;
    is_written.await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_task_writes_into_the_stream_of_its_run_until_the_run_ends() {
    let app = graph! { graph SUB { lends -> END } SUB -> END };
    let run = app.stream(AgentState::default(), RunConfig::new());
    settle().await;
    // The run has ended and its events are unread; the task neither waits nor fails.
    LATE.notify_one();
    assert_eq!(app.aclose().await.tasks.outcomes.completed, 1);

    let kinds = kinds_of(run).await;
    let written: Vec<_> = kinds
        .iter()
        .filter_map(|kind| match kind {
            EventKind::Custom { node, name, data, .. } => Some((node.as_str(), name.as_str(), data.as_str().unwrap())),
            _ => None,
        })
        .collect();
    assert_eq!(written, [("SUB/lends", "early", "from the task")]);
    assert!(matches!(kinds.last(), Some(EventKind::RunEnded { error: None, .. })));
}

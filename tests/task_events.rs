//! Task events in a run's stream.

use agentflow::{AgentState, BackgroundTaskManager, RunConfig, graph, node, run::EventKind, task::SpawnError};
use tokio::sync::Notify;

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

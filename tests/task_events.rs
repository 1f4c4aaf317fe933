//! A run's stream tells of the background tasks that its nodes start.

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
async fn a_stream_tells_of_the_tasks_that_start_and_end_while_the_run_lasts() {
    let app = graph! { starts -> END };
    let mut run = app.stream(AgentState::default(), RunConfig::new());
    let mut kinds = Vec::new();
    while let Some(event) = run.next().await {
        kinds.push(event.kind);
    }
    assert_eq!(tasks_of_run(&kinds), ["starts started quick", "starts started slow", "starts's quick completed"]);
    assert!(matches!(kinds.last(), Some(EventKind::RunEnded { error: None, .. })));

    // What ends after the run is not told: the run's last event was its end.
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
async fn nothing_is_kept_for_a_reader_that_is_gone() {
    let app = graph! { waits -> END };
    let mut run = app.stream(AgentState::default(), RunConfig::new());
    while !matches!(run.next().await.map(|event| event.kind), Some(EventKind::TaskStarted { .. })) {}
    drop(run);
    // The run is cancelled; its task goes on, ends, and has nobody to tell.
    let report = app.stop().await;
    assert_eq!((report.runs.still_running.len(), report.tasks.outcomes.cancelled), (0, 1));
}

/// More than a stream keeps for a reader that doesn't read.
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
async fn a_reader_that_is_far_behind_is_told_how_many_tasks_it_missed() {
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
    // All are spawned before the reader's turn comes.
    assert!(missed > 900, "{missed}");
    assert_eq!(told + missed, 2 * MANY as u64);
}

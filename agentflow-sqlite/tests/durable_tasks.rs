//! Durable tasks of two apps, each with an opening of its own of one file.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use agentflow::{
    AgentState, CompiledGraph, NodeError, RetryPolicy, graph, node,
    store::{TaskChanged, TaskStatus},
    task,
};
use agentflow_sqlite::SqliteStore;
use tokio::sync::Semaphore;

/// The lines of the tasks, and a signal that one has begun.
type Desk = Arc<(Mutex<Vec<String>>, Semaphore)>;

#[task]
async fn flaky(args: String, attempt: u32, #[inject] desk: &Desk) -> Result<(), NodeError> {
    desk.0.lock().unwrap().push(format!("{args} {attempt}"));
    if attempt < 3 { Err("no answer".into()) } else { Ok(()) }
}

#[task]
async fn hangs(#[inject] desk: &Desk) {
    desk.1.add_permits(1);
    std::future::pending::<()>().await;
}

#[node]
async fn idle(_state: &mut AgentState) {}

fn app_on(path: &Path, desk: &Desk) -> CompiledGraph<AgentState, Desk> {
    graph! {
        name = "office";
        type State = AgentState;
        idle -> END;
        tasks { flaky, hangs }
        compile { services: Arc::clone(desk), store: SqliteStore::open(path).unwrap() }
    }
}

#[tokio::test]
async fn each_task_runs_in_one_of_two_processes_until_it_is_done() {
    let directory = tempfile::tempdir().unwrap();
    let desk: Desk = Arc::new((Mutex::default(), Semaphore::new(0)));
    let path = directory.path().join("app.db");
    let apps = [app_on(&path, &desk), app_on(&path, &desk)];
    let mut ids = Vec::new();
    for (number, app) in apps.iter().cycle().take(10).enumerate() {
        let policy = RetryPolicy::new(2).backoff(Duration::from_millis(1));
        let task = app.task_manager().create_durable_task::<flaky>(format!("task {number}")).retry(policy);
        ids.push(task.spawn_stored().await.unwrap());
    }
    for id in ids {
        let row = apps[1].tasks().wait(id).await.unwrap().unwrap();
        assert_eq!((row.status, row.failed_attempts, row.crashes), (TaskStatus::Done, 2, 0));
    }
    let mut lines = desk.0.lock().unwrap().clone();
    lines.sort_unstable();
    let expected = (0..10).flat_map(|number| (1..4).map(move |attempt| format!("task {number} {attempt}")));
    assert_eq!(lines, expected.collect::<Vec<_>>());
    for app in apps {
        assert!(app.aclose().await.kept_tasks.is_empty());
    }
}

#[tokio::test]
async fn a_task_is_cancelled_by_another_process_and_kept_by_a_shutdown() {
    let directory = tempfile::tempdir().unwrap();
    let desk: Desk = Arc::new((Mutex::default(), Semaphore::new(0)));
    let path = directory.path().join("app.db");
    let (app, other) = (app_on(&path, &desk), app_on(&path, &desk));
    let cancelled = app.task_manager().create_durable_task::<hangs>(()).spawn_stored().await.unwrap();
    desk.1.acquire().await.unwrap().forget();
    assert!(matches!(other.tasks().cancel(cancelled).await.unwrap(), TaskChanged::Marked(_)));
    let row = other.tasks().wait(cancelled).await.unwrap().unwrap();
    assert_eq!(row.status, TaskStatus::Cancelled);

    let kept = app.task_manager().create_durable_task::<hangs>(()).spawn_stored().await.unwrap();
    desk.1.acquire().await.unwrap().forget();
    assert_eq!(app.stop().await.kept_tasks, [kept]);
    // The next one takes it over at once.
    let _ = other.recover().await.unwrap();
    desk.1.acquire().await.unwrap().forget();
    let row = other.tasks().get(kept).await.unwrap().unwrap();
    assert_eq!((row.status, row.crashes, row.epoch), (TaskStatus::Running, 0, 2));
    assert_eq!(other.stop().await.kept_tasks, [kept]);
}

//! Groups of tasks: bounded, awaited and cancelled together.

use std::{
    convert::Infallible,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use agentflow::{
    BackgroundTaskManager,
    task::{OnDuplicateKey, SpawnError, TaskError, TaskGroup},
};
use futures::FutureExt;
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_group_runs_no_more_tasks_than_it_may() {
    let tasks = BackgroundTaskManager::new();
    let live = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let mut group = TaskGroup::new().max_running(3);
    for job in 0..20_u64 {
        let (live, most) = (Arc::clone(&live), Arc::clone(&most));
        let work = async move {
            most.fetch_max(live.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            sleep(SECOND * u32::try_from(job % 4).unwrap()).await;
            live.fetch_sub(1, Ordering::Relaxed);
            Ok::<_, Infallible>(job)
        };
        group.spawn(tasks.create_task(work).name("job")).await.unwrap();
        assert!(tasks.task_count() <= 3);
    }
    let mut jobs: Vec<_> = group.wait().await.into_iter().map(|ended| ended.result.unwrap()).collect();
    jobs.sort_unstable();
    assert_eq!(jobs, (0..20).collect::<Vec<_>>());
    assert_eq!(most.load(Ordering::Relaxed), 3);
    assert!(group.is_empty());
}

#[tokio::test(start_paused = true)]
async fn results_come_in_the_order_in_which_the_tasks_end() {
    let tasks = BackgroundTaskManager::new();
    let mut group = TaskGroup::new();
    for seconds in [3, 1, 2] {
        let work = async move {
            sleep(SECOND * seconds).await;
            if seconds == 2 { Err("two") } else { Ok(seconds) }
        };
        group.spawn(tasks.create_task(work).name(format!("job-{seconds}"))).await.unwrap();
    }
    assert_eq!(group.len(), 3);
    let first = group.next().await.unwrap();
    assert_eq!((first.name.as_str(), first.result.unwrap()), ("job-1", 1));
    let second = group.next().await.unwrap();
    assert!(matches!(second.result, Err(TaskError::Failed(_))), "{:?}", second.result);
    assert_eq!(group.next().await.unwrap().result.unwrap(), 3);
    assert!(group.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_group_cancels_its_own_tasks_only() {
    let tasks = BackgroundTaskManager::new();
    let other = tasks.create_task(pending::<()>()).spawn().unwrap();
    let mut group = TaskGroup::new();
    for _ in 0..3 {
        group.spawn(tasks.create_task(pending::<()>())).await.unwrap();
    }
    group.cancel();
    let results = group.wait().await;
    assert_eq!(results.len(), 3);
    assert!(results.iter().all(|ended| matches!(ended.result, Err(TaskError::Cancelled))));
    assert!(!other.is_finished());
    assert_eq!(tasks.task_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_spawn_or_wait_loses_no_result() {
    let tasks = BackgroundTaskManager::new();
    let mut group = TaskGroup::new().max_running(1);
    group.spawn(tasks.create_task(async { sleep(SECOND).await })).await.unwrap();
    assert!(group.spawn(tasks.create_task(sleep(SECOND))).now_or_never().is_none());
    assert!(group.wait().now_or_never().is_none());
    assert!(group.next().now_or_never().is_none());
    sleep(2 * SECOND).await;
    group.spawn(tasks.create_task(sleep(SECOND))).await.unwrap();
    assert_eq!((group.wait().await.len(), tasks.stats().spawned), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_refused_task_is_no_member() {
    let tasks = BackgroundTaskManager::new();
    let mut group = TaskGroup::new();
    let task = || tasks.create_task(pending::<()>()).name("index").key("k", OnDuplicateKey::Skip);
    group.spawn(task()).await.unwrap();
    assert_eq!(group.spawn(task()).await, Err(SpawnError::DuplicateKey));
    assert_eq!(group.len(), 1);
    drop(group);
    sleep(SECOND).await;
    assert_eq!(tasks.task_count(), 1, "dropping a group leaves its tasks running");
}

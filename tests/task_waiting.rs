//! Waiting for tasks.

use std::{future::pending, time::Duration};

use agentflow::{BackgroundTaskManager, TaskContext};
use futures::FutureExt;
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn promise_06_wait_for_all_drains_and_never_cancels() {
    let tasks = BackgroundTaskManager::new();
    tasks.create_task(sleep(SECOND)).name("short").spawn().unwrap();
    let long = tasks.create_task(sleep(10 * SECOND)).name("long").spawn().unwrap();
    let began = Instant::now();
    let still = tasks.wait_for_all(Some(3 * SECOND)).await.unwrap_err();
    assert_eq!(began.elapsed(), 3 * SECOND);
    assert_eq!(still.still_running.len(), 1);
    assert_eq!(still.to_string(), "1 background task still runs: long #2 (for 3.0s)");
    // The wait did not affect the task.
    tasks.wait_for_all(None).await.unwrap();
    assert_eq!(began.elapsed(), 10 * SECOND);
    long.await.unwrap();
    assert_eq!(tasks.stats().outcomes.completed, 2);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_nothing_returns_at_once() {
    let tasks = BackgroundTaskManager::new();
    assert!(tasks.wait_for_all(None).now_or_never().unwrap().is_ok());
    assert!(tasks.wait_for_all(Some(Duration::ZERO)).now_or_never().unwrap().is_ok());
    tasks.create_task(pending::<()>()).spawn().unwrap();
    assert!(tasks.wait_for_all(Some(Duration::ZERO)).now_or_never().unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_wait_made_before_a_spawn_waits_for_it() {
    let tasks = BackgroundTaskManager::new();
    let wait = tasks.wait_for_all(None);
    tasks.create_task(sleep(SECOND)).spawn().unwrap();
    wait.await.unwrap();
    assert_eq!(tasks.task_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn tasks_spawned_meanwhile_are_waited_for() {
    let tasks = BackgroundTaskManager::new();
    let work = |task: TaskContext| async move {
        sleep(SECOND).await;
        task.manager().create_task(sleep(SECOND)).spawn().unwrap();
    };
    tasks.create_task_with_context(work).spawn().unwrap();
    let began = Instant::now();
    tasks.wait_for_all(None).await.unwrap();
    assert_eq!((began.elapsed(), tasks.stats().outcomes.completed), (2 * SECOND, 2));
}

#[tokio::test(start_paused = true)]
async fn wait_for_all_inside_a_task_excludes_the_task_and_its_ancestors() {
    let tasks = BackgroundTaskManager::new();
    let manager = tasks.clone();
    let began = Instant::now();
    let parent = async move {
        let inner = manager.clone();
        let child = async move {
            inner.create_task(sleep(SECOND)).name("other").spawn().unwrap();
            inner.wait_for_all(None).await
        };
        // The parent waits for the child, and the child waits for all tasks.
        manager.create_task(child).spawn().unwrap().await
    };
    tasks.create_task(parent).timeout(60 * SECOND).spawn().unwrap().await.unwrap();
    assert_eq!(began.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn work_outside_of_a_task_waits_through_the_tasks_manager() {
    let tasks = BackgroundTaskManager::new();
    let work = |task: TaskContext| async move {
        let manager = task.manager().clone();
        tokio::spawn(async move { manager.wait_for_all(Some(SECOND)).await }).await.unwrap()
    };
    tasks.create_task_with_context(work).spawn().unwrap().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_task_of_another_manager_is_not_excluded_from_a_wait() {
    let ours = BackgroundTaskManager::new();
    let others = BackgroundTaskManager::new();
    let manager = ours.clone();
    ours.create_task(sleep(SECOND)).spawn().unwrap();
    let began = Instant::now();
    // Both tasks are number 1 of their manager.
    let work = async move { manager.wait_for_all(None).await };
    others.create_task(work).spawn().unwrap().await.unwrap();
    assert_eq!(began.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn concurrent_waits_are_independent() {
    let tasks = BackgroundTaskManager::new();
    tasks.create_task(sleep(SECOND)).spawn().unwrap();
    {
        let dropped = tasks.wait_for_all(None);
        futures::pin_mut!(dropped);
        assert!(dropped.now_or_never().is_none());
    }
    let (one, two) = tokio::join!(tasks.wait_for_all(None), tasks.wait_for_all(None));
    one.unwrap();
    two.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_task_created_before_the_wait_is_live_after_it() {
    let tasks = BackgroundTaskManager::new();
    for _ in 0..500 {
        let handle = tasks.create_task(tokio::task::yield_now()).spawn().unwrap();
        tasks.wait_for_all(None).await.unwrap();
        assert!(handle.is_finished());
    }
    assert_eq!(tasks.stats().outcomes.completed, 500);
}

#[tokio::test]
async fn a_blocking_task_that_waits_does_not_wait_for_itself() {
    let tasks = BackgroundTaskManager::new();
    let runtime = tokio::runtime::Handle::current();
    let manager = tasks.clone();
    let work = move |_| {
        manager.create_task(tokio::task::yield_now()).spawn().unwrap();
        runtime.block_on(manager.wait_for_all(None))
    };
    tasks.create_blocking_task(work).spawn().unwrap().await.unwrap();
    assert_eq!(tasks.stats().outcomes.completed, 2);
}

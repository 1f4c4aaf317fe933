//! Timeouts of tasks.

use std::{
    convert::Infallible,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use agentflow::{
    BackgroundTaskManager,
    task::{TaskError, TaskOutcome, TaskState},
};
use futures::FutureExt;
use tokio::time::{Instant, advance, sleep};
use tracing::Level;

use crate::support::{capture, settle};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn promise_03_past_timeout_the_task_is_cancelled_once_and_warned() {
    let (log, _guard) = capture();
    let tasks = BackgroundTaskManager::new();
    let began = Instant::now();
    let handle = tasks.create_task(pending::<()>()).name("upload").timeout(10 * SECOND).spawn().unwrap();
    let Err(TaskError::TimedOut { after, .. }) = handle.await else { panic!("expected a timeout") };
    assert_eq!((after, began.elapsed()), (10 * SECOND, 10 * SECOND));

    let stats = tasks.stats();
    assert_eq!(
        (stats.outcomes.timed_out, stats.outcomes.cancelled, stats.outcomes.aborted, stats.active),
        (1, 0, 0, 0)
    );
    // A timer that was left behind would fire within a day.
    sleep(86_400 * SECOND).await;
    assert_eq!(tasks.stats(), stats);
    let lines = log.ends();
    assert_eq!(lines.len(), 1);
    assert_eq!((lines[0].level, lines[0].field("name")), (Level::WARN, "upload"));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_done_in_time_is_completed() {
    let tasks = BackgroundTaskManager::new();
    let handle = tasks.create_task(sleep(SECOND)).timeout(2 * SECOND).spawn().unwrap();
    handle.await.unwrap();
    sleep(5 * SECOND).await;
    assert_eq!(tasks.stats().outcomes.completed, 1);
}

#[tokio::test(start_paused = true)]
async fn zero_times_out_without_a_poll() {
    let tasks = BackgroundTaskManager::new();
    let polled = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&polled);
    let work = async move { flag.store(true, Ordering::SeqCst) };
    let handle = tasks.create_task(work).timeout(Duration::ZERO).spawn().unwrap();
    assert_eq!(handle.await.unwrap_err().outcome(), TaskOutcome::TimedOut);

    let flag = Arc::clone(&polled);
    let work = move |_| flag.store(true, Ordering::SeqCst);
    let handle = tasks.create_blocking_task(work).timeout(Duration::ZERO).spawn().unwrap();
    assert_eq!(handle.await.unwrap_err().outcome(), TaskOutcome::TimedOut);
    assert!(!polled.load(Ordering::SeqCst));
}

#[tokio::test(start_paused = true)]
async fn the_clock_starts_at_spawn() {
    let tasks = BackgroundTaskManager::new();
    let began = Instant::now();
    let handle = tasks.create_task(pending::<()>()).timeout(3 * SECOND).spawn().unwrap();
    // The task is first polled two seconds later.
    assert!(advance(2 * SECOND).now_or_never().is_none());
    handle.await.unwrap_err();
    assert_eq!(began.elapsed(), 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_ready_at_its_deadline_is_completed() {
    for millis in 1..50 {
        let tasks = BackgroundTaskManager::new();
        let time = Duration::from_millis(millis);
        let handle = tasks.create_task(sleep(time)).timeout(time).spawn().unwrap();
        for _ in 0..millis {
            advance(Duration::from_millis(1)).await;
        }
        handle.await.unwrap();
        let late = tasks.create_task(sleep(time + Duration::from_millis(1))).timeout(time).spawn().unwrap();
        assert_eq!(late.await.unwrap_err().outcome(), TaskOutcome::TimedOut);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_blocked_past_its_deadline_is_completed_with_a_warning() {
    let (log, _guard) = capture();
    let tasks = BackgroundTaskManager::new();
    let blocks = async {
        // One poll of `advance` moves the clock, like a body that blocks its thread.
        let _ = advance(5 * SECOND).now_or_never();
        Ok::<_, Infallible>("done")
    };
    let handle = tasks.create_task(blocks).timeout(2 * SECOND).spawn().unwrap();
    assert_eq!(handle.await.unwrap(), "done");
    assert_eq!(tasks.stats().outcomes.completed, 1);
    let lines = log.ends();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].level, Level::WARN);
    assert_eq!((lines[0].field("outcome"), lines[0].field("overrun")), ("completed", "3s"));
}

#[tokio::test(start_paused = true)]
async fn the_longest_duration_is_no_timeout() {
    let tasks = BackgroundTaskManager::new();
    let handle = tasks.create_task(sleep(SECOND)).timeout(Duration::MAX).spawn().unwrap();
    assert_eq!(tasks.task_info()[0].timeout(), Some(Duration::MAX));
    handle.await.unwrap();
    tasks.create_task(sleep(SECOND)).spawn().unwrap();
    tasks.wait_for_all(Some(Duration::MAX)).await.unwrap();
    tasks.create_task(sleep(SECOND)).spawn().unwrap();
    assert!(tasks.close(Some(Duration::MAX)).await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_timeout_cancels_clones_of_the_tasks_token() {
    let tasks = BackgroundTaskManager::new();
    let (send, receive) = tokio::sync::oneshot::channel();
    let work = |task: agentflow::TaskContext| async move {
        send.send(task.token().clone()).unwrap();
        pending::<()>().await;
    };
    let handle = tasks.create_task_with_context(work).timeout(SECOND).spawn().unwrap();
    let token = receive.await.unwrap();
    let began = Instant::now();
    token.cancelled().await;
    assert_eq!(handle.await.unwrap_err().outcome(), TaskOutcome::TimedOut);
    assert_eq!(began.elapsed(), SECOND, "a timeout has no grace");
}

#[tokio::test(start_paused = true)]
async fn an_error_of_tokios_timeout_is_not_the_tasks_timeout() {
    let tasks = BackgroundTaskManager::new();
    let work = async { tokio::time::timeout(SECOND, pending::<()>()).await };
    let handle = tasks.create_task(work).timeout(5 * SECOND).spawn().unwrap();
    assert_eq!(handle.await.unwrap_err().outcome(), TaskOutcome::Failed);
}

#[tokio::test(start_paused = true)]
async fn a_timed_out_blocking_task_is_cancelled_and_keeps_its_own_result() {
    let tasks = BackgroundTaskManager::new();
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let work = move |task: agentflow::TaskContext| {
        begun.send(task.token().clone()).unwrap();
        wait.recv().unwrap();
        assert!(task.is_cancelled());
    };
    let handle = tasks.create_blocking_task(work).timeout(SECOND).spawn().unwrap();
    let token = has_begun.await.unwrap();
    // The paused clock does not advance by itself while a blocking task runs.
    advance(2 * SECOND).await;
    token.cancelled().await;
    assert_eq!(tasks.task_info()[0].state(), TaskState::Cancelling);
    go.send(()).unwrap();
    handle.await.unwrap();
    assert_eq!(tasks.stats().outcomes.completed, 1);
}

#[test]
fn a_blocking_task_that_times_out_before_it_starts_never_starts() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let tasks = BackgroundTaskManager::new();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        tasks.create_blocking_task(move |_| wait.recv().unwrap()).spawn().unwrap();
        let begun = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&begun);
        let queued = tasks.create_blocking_task(move |_| flag.store(true, Ordering::SeqCst));
        let queued = queued.timeout(SECOND).spawn().unwrap();
        settle().await;
        advance(2 * SECOND).await;
        settle().await;
        go.send(()).unwrap();
        assert_eq!(queued.await.unwrap_err().outcome(), TaskOutcome::TimedOut);
        assert!(!begun.load(Ordering::SeqCst));
    });
}

#[tokio::test(start_paused = true)]
async fn a_busy_body_times_out() {
    let tasks = BackgroundTaskManager::new();
    let busy = async {
        for _ in 0..100_000 {
            // The body yields only because tokio's budget forces it to.
            let _ = advance(Duration::from_millis(1)).now_or_never();
            tokio::task::coop::consume_budget().await;
        }
    };
    let handle = tasks.create_task(busy).timeout(SECOND).spawn().unwrap();
    assert_eq!(handle.await.unwrap_err().outcome(), TaskOutcome::TimedOut);
}

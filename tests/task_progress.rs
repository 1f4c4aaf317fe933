//! Progress and heartbeats of tasks, the idle timeout, and `TaskContext::current`.

use std::{future::pending, time::Duration};

use agentflow::{
    BackgroundTaskManager, RetryPolicy, TaskContext,
    task::{TaskError, TaskId, TaskInfo, TaskManagerOptions, TaskOutcome, TaskState, TimeoutKind},
};
use tokio::{
    sync::oneshot,
    time::{Instant, advance, sleep},
};
use tracing::Level;

use crate::support::{OnDrop, capture, settle};

const SECOND: Duration = Duration::from_secs(1);

/// Returns the progress of a task that reports this, as numbers and as text.
async fn seen(fraction: f64, message: &'static str) -> (f64, String) {
    let tasks = BackgroundTaskManager::new();
    let work = move |task: TaskContext| async move {
        task.progress(fraction, message);
        pending::<()>().await;
    };
    tasks.create_task_with_context(work).name("upload").spawn().unwrap();
    settle().await;
    let info = tasks.task_info().remove(0);
    assert_eq!(info.progress().unwrap().message.as_ref(), message);
    (info.progress().unwrap().fraction, info.to_string())
}

#[tokio::test(start_paused = true)]
async fn progress_is_part_of_the_info_and_its_text() {
    let (fraction, line) = seen(0.4, "sending").await;
    assert!((fraction - 0.4).abs() < f64::EPSILON);
    assert_eq!(line, "upload #1 (for 0.0ns, 40 % sending)");
    assert_eq!(seen(0.0, "opening").await.1, "upload #1 (for 0.0ns, 0 % opening)");
    assert_eq!(seen(1.0, "").await.1, "upload #1 (for 0.0ns, 100 %)", "nothing said, nothing added");
}

#[tokio::test(start_paused = true)]
async fn fractions_are_clamped_and_nan_is_zero() {
    for (told, expected) in [
        (1.5, 1.0),
        (f64::INFINITY, 1.0),
        (-0.5, 0.0),
        (f64::NEG_INFINITY, 0.0),
        (f64::NAN, 0.0),
        (-f64::NAN, 0.0),
        (-0.0, 0.0),
        (f64::MIN_POSITIVE, f64::MIN_POSITIVE),
    ] {
        let (fraction, line) = seen(told, "on").await;
        assert_eq!(fraction.to_bits(), f64::to_bits(expected), "{told} is {fraction}");
        assert!(!line.contains('-'), "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_latest_progress_is_kept_and_a_heartbeat_does_not_change_it() {
    let tasks = BackgroundTaskManager::new();
    let work = |task: TaskContext| async move {
        assert!(task.manager().task_info()[0].progress().is_none());
        task.heartbeat();
        assert!(task.manager().task_info()[0].progress().is_none());
        task.progress(0.9, "first");
        task.progress(0.1, String::from("second"));
        task.heartbeat();
        pending::<()>().await;
    };
    tasks.create_task_with_context(work).spawn().unwrap();
    settle().await;
    let info = tasks.task_info().remove(0);
    assert_eq!(info.progress().unwrap().to_string(), "10 % second");
    assert!(format!("{info:?}").contains("second"));
}

#[tokio::test(start_paused = true)]
async fn progress_of_an_ended_task_is_ignored() {
    let tasks = BackgroundTaskManager::new();
    let left =
        tasks.create_task_with_context(|task| async { Ok::<_, TaskError>(task) }).spawn().unwrap().await.unwrap();
    let mut events = tasks.events();
    left.progress(0.5, "too late");
    left.heartbeat();
    tasks.close(None).await;
    assert!(events.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_task_without_heartbeats_times_out() {
    let (log, _guard) = capture();
    let (tasks, (dropped, was_dropped)) = (BackgroundTaskManager::new(), oneshot::channel());
    let mut dropped = Some(dropped);
    let work = async move {
        let _on_drop = OnDrop(|| dropped.take().unwrap().send(()).unwrap());
        pending::<()>().await;
    };
    let error = tasks.create_task(work).idle_timeout(5 * SECOND).spawn().unwrap().await.unwrap_err();
    assert_eq!(error.to_string(), "the background task timed out: it sent no heartbeat for 5s");
    let TaskError::TimedOut { after, limit, .. } = error else { panic!("{error:?}") };
    assert_eq!((after, limit), (5 * SECOND, TimeoutKind::Idle));
    was_dropped.await.unwrap();
    let end = tasks.recently_finished().remove(0);
    assert_eq!((end.outcome(), end.limit(), end.age()), (TaskOutcome::TimedOut, Some(TimeoutKind::Idle), 5 * SECOND));
    assert_eq!(end.timeout(), None);
    let line = log.event("background task timed out without a heartbeat");
    assert_eq!((line.level, line.field("limit"), line.field("outcome")), (Level::WARN, "idle", "timed_out"));
}

#[tokio::test(start_paused = true)]
async fn progress_and_heartbeats_reset_the_idle_timeout() {
    let tasks = BackgroundTaskManager::new();
    let work = |task: TaskContext| async move {
        for step in 0..5 {
            sleep(4 * SECOND).await;
            if step % 2 == 0 { task.heartbeat() } else { task.progress(0.5, "on") }
        }
        pending::<()>().await;
    };
    let handle = tasks.create_task_with_context(work).idle_timeout(5 * SECOND).spawn().unwrap();
    assert_eq!(handle.await.unwrap_err().outcome(), TaskOutcome::TimedOut);
    assert_eq!(tasks.recently_finished()[0].age(), 25 * SECOND, "five seconds after the last one");
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_from_another_task_counts() {
    let tasks = BackgroundTaskManager::new();
    let (send, receive) = oneshot::channel();
    let work = |task: TaskContext| async move {
        send.send(task).unwrap();
        pending::<()>().await;
    };
    let handle = tasks.create_task_with_context(work).idle_timeout(5 * SECOND).spawn().unwrap();
    let task = receive.await.unwrap();
    // No event wakes the task meanwhile.
    sleep(4 * SECOND).await;
    task.heartbeat();
    handle.await.unwrap_err();
    assert_eq!(tasks.recently_finished()[0].age(), 9 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_done_in_time_leaves_no_timer() {
    let tasks = BackgroundTaskManager::new();
    tasks.create_task(sleep(5 * SECOND)).idle_timeout(5 * SECOND).spawn().unwrap().await.unwrap();
    tasks.create_task(sleep(SECOND)).idle_timeout(Duration::MAX).spawn().unwrap().await.unwrap();
    sleep(60 * SECOND).await;
    assert_eq!(tasks.stats().outcomes.completed, 2);
}

#[tokio::test(start_paused = true)]
async fn time_in_the_queue_is_not_idle_time() {
    let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().max_running(1));
    tasks.create_task(sleep(60 * SECOND)).spawn().unwrap();
    let queued = tasks.create_task(async { sleep(4 * SECOND).await }).idle_timeout(5 * SECOND).spawn().unwrap();
    let idle = tasks.create_task(pending::<()>()).idle_timeout(5 * SECOND).spawn().unwrap();
    queued.await.unwrap();
    assert_eq!(idle.await.unwrap_err().outcome(), TaskOutcome::TimedOut);
    assert_eq!(tasks.recently_finished()[2].age(), 69 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_shorter_of_timeout_and_idle_timeout_ends_the_task() {
    async fn limit(timeout: Duration, idle: Duration) -> (TimeoutKind, Duration) {
        let tasks = BackgroundTaskManager::new();
        let builder = tasks.create_task(pending::<()>()).timeout(timeout).idle_timeout(idle);
        let TaskError::TimedOut { after, limit, .. } = builder.spawn().unwrap().await.unwrap_err() else {
            panic!("expected a timeout")
        };
        assert_eq!(tasks.recently_finished()[0].age(), after);
        (limit, after)
    }
    assert_eq!(limit(9 * SECOND, 5 * SECOND).await, (TimeoutKind::Idle, 5 * SECOND));
    assert_eq!(limit(5 * SECOND, 9 * SECOND).await, (TimeoutKind::Total, 5 * SECOND));
    assert_eq!(limit(5 * SECOND, 5 * SECOND).await, (TimeoutKind::Total, 5 * SECOND), "the plainer one");
    assert_eq!(limit(5 * SECOND, Duration::ZERO).await, (TimeoutKind::Idle, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn heartbeats_do_not_extend_the_timeout() {
    let tasks = BackgroundTaskManager::new();
    let work = |task: TaskContext| async move {
        loop {
            sleep(SECOND).await;
            task.heartbeat();
        }
    };
    let handle = tasks.create_task_with_context(work).timeout(10 * SECOND).idle_timeout(2 * SECOND).spawn().unwrap();
    let Err(TaskError::TimedOut { limit, .. }) = handle.await else { panic!("expected a timeout") };
    assert_eq!((limit, tasks.recently_finished()[0].age()), (TimeoutKind::Total, 10 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_task_has_no_idle_timeout_in_its_grace_period() {
    let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().grace_period(10 * SECOND));
    let work = |task: TaskContext| async move {
        task.cancelled().await;
        sleep(8 * SECOND).await;
    };
    let handle = tasks.create_task_with_context(work).idle_timeout(5 * SECOND).spawn().unwrap();
    settle().await;
    handle.cancel();
    handle.await.unwrap();
    assert_eq!(tasks.recently_finished()[0].age(), 8 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn each_attempt_resets_the_idle_timeout_and_pauses_do_not_count() {
    let tasks = BackgroundTaskManager::new();
    let attempt = |number| async move {
        sleep(if number < 4 { 3 * SECOND } else { 9 * SECOND }).await;
        Err::<(), _>("no")
    };
    let policy = RetryPolicy::new(9).backoff(20 * SECOND).factor(1.0);
    let handle = tasks.create_retrying_task(attempt).retry(policy).idle_timeout(5 * SECOND).spawn().unwrap();
    let Err(TaskError::TimedOut { limit, .. }) = handle.await else { panic!("expected a timeout") };
    let end = &tasks.recently_finished()[0];
    assert_eq!((limit, end.attempts(), end.age()), (TimeoutKind::Idle, 4, 74 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn an_idle_blocking_task_is_cancelled_and_keeps_its_own_result() {
    let tasks = BackgroundTaskManager::new();
    let (begun, has_begun) = oneshot::channel();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let work = move |task: TaskContext| {
        begun.send(task.clone()).unwrap();
        wait.recv().unwrap();
        assert!(task.is_cancelled());
    };
    let handle = tasks.create_blocking_task(work).idle_timeout(5 * SECOND).spawn().unwrap();
    let task = has_begun.await.unwrap();
    // The paused clock does not advance by itself while a blocking task runs.
    advance(4 * SECOND).await;
    task.heartbeat();
    advance(4 * SECOND).await;
    settle().await;
    assert!(!task.is_cancelled());
    assert_eq!(tasks.task_info()[0].state(), TaskState::Running);
    advance(2 * SECOND).await;
    task.cancelled().await;
    assert_eq!(tasks.task_info()[0].state(), TaskState::Cancelling);
    go.send(()).unwrap();
    handle.await.unwrap();
    assert_eq!((tasks.stats().outcomes.completed, tasks.stats().outcomes.timed_out), (1, 0));
}

fn current_id() -> Option<TaskId> {
    TaskContext::current().map(|task| task.id())
}

#[tokio::test(start_paused = true)]
async fn current_returns_the_task_in_each_kind_of_work_and_none_outside() {
    assert!(current_id().is_none());
    let tasks = BackgroundTaskManager::new();
    let plain = tasks.create_task(async { Ok::<_, TaskError>(current_id()) }).spawn().unwrap();
    let given = |task: TaskContext| {
        // The closure already runs inside the task.
        assert_eq!(current_id(), Some(task.id()));
        async move { Ok::<_, TaskError>(current_id()) }
    };
    let given = tasks.create_task_with_context(given).spawn().unwrap();
    let blocking = |task: TaskContext| {
        assert_eq!(current_id(), Some(task.id()));
        Ok::<_, TaskError>(current_id())
    };
    let blocking = tasks.create_blocking_task(blocking).spawn().unwrap();
    let attempt = |_| {
        let in_the_closure = current_id();
        async move {
            assert_eq!(current_id(), in_the_closure);
            Ok::<_, TaskError>(current_id())
        }
    };
    let retrying = tasks.create_retrying_task(attempt).attempt_timeout(SECOND).spawn().unwrap();
    for handle in [plain, given, blocking, retrying] {
        let id = handle.id();
        assert_eq!(handle.await.unwrap(), Some(id));
        assert!(current_id().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn current_works_in_nested_futures_and_destructors() {
    async fn deep(depth: u32) {
        tokio::task::yield_now().await;
        assert_eq!(current_id().unwrap().get(), 1);
        if depth > 0 {
            Box::pin(deep(depth - 1)).await;
        }
    }
    let tasks = BackgroundTaskManager::new();
    let (dropped_in, dropped) = oneshot::channel();
    let mut dropped_in = Some(dropped_in);
    let work = async move {
        let _on_drop = OnDrop(|| dropped_in.take().unwrap().send(current_id()).unwrap());
        deep(3).await;
        tokio::join!(deep(1), deep(2));
        pending::<()>().await;
    };
    let handle = tasks.create_task(work).spawn().unwrap();
    settle().await;
    handle.cancel();
    assert_eq!(dropped.await.unwrap(), Some(handle.id()));
}

#[tokio::test(start_paused = true)]
async fn current_is_none_in_tokio_tasks() {
    let tasks = BackgroundTaskManager::new();
    let work = async {
        let spawned = tokio::spawn(async { current_id() }).await.unwrap();
        let blocking = tokio::task::spawn_blocking(current_id).await.unwrap();
        let thread = std::thread::spawn(current_id).join().unwrap();
        Ok::<_, TaskError>([spawned, blocking, thread])
    };
    assert_eq!(tasks.create_task(work).spawn().unwrap().await.unwrap(), [None; 3]);
}

#[tokio::test(start_paused = true)]
async fn current_returns_the_task_of_another_manager() {
    let (outer, inner) = (BackgroundTaskManager::new(), BackgroundTaskManager::new());
    inner.create_task(async {}).spawn().unwrap().await.unwrap();
    let other = inner.clone();
    let work = async move {
        let me = current_id().unwrap();
        let child = other.create_task(async { Ok::<_, TaskError>(current_id()) }).spawn().unwrap().await.unwrap();
        assert_eq!((me.get(), child.unwrap().get()), (1, 2));
        let names: Vec<_> =
            TaskContext::current().unwrap().manager().task_info().iter().map(|task| task.name().to_owned()).collect();
        assert_eq!(names, ["outer"]);
    };
    outer.create_task(work).name("outer").spawn().unwrap().await.unwrap();
}

#[test]
fn current_is_restored_after_a_nested_block_on() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let tasks = BackgroundTaskManager::new();
        let outer = tasks.clone();
        let work = move |task: TaskContext| {
            // Tasks spawned on this inner runtime run on the same thread.
            let own = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            own.block_on(async {
                assert_eq!(current_id(), Some(task.id()));
                let nested = BackgroundTaskManager::new();
                for _ in 0..3 {
                    // Equal ids of two managers must not be confused.
                    nested.create_task(async {}).spawn().unwrap().await.unwrap();
                }
                let child = nested.create_task(async {
                    tokio::task::yield_now().await;
                    Ok::<_, TaskError>(current_id())
                });
                let child = child.spawn().unwrap();
                let id = child.id();
                assert_eq!(child.await.unwrap(), Some(id));
                assert_eq!(current_id(), Some(task.id()));
            });
            assert_eq!(current_id(), Some(task.id()));
            // The task does not wait for its child, which would wait for its own spawner.
            outer.create_task(async {}).name("child").spawn().map(drop)
        };
        tasks.create_blocking_task(work).spawn().unwrap().await.unwrap();
        tasks.wait_for_all(None).await.unwrap();
        assert_eq!(tasks.stats().outcomes.completed, 2);
    });
}

#[tokio::test(start_paused = true)]
async fn current_is_equivalent_to_a_passed_context() {
    let tasks = BackgroundTaskManager::new();
    let began = Instant::now();
    let work = async {
        let task = TaskContext::current().unwrap();
        for _ in 0..3 {
            sleep(4 * SECOND).await;
            task.progress(0.5, "found");
        }
        task.manager().create_task(sleep(SECOND)).name("child").spawn().map(drop)
    };
    let handle = tasks.create_task(work).idle_timeout(5 * SECOND).spawn().unwrap();
    sleep(10 * SECOND).await;
    let infos = tasks.task_info();
    let lines: Vec<_> = infos.iter().map(TaskInfo::progress).collect();
    assert_eq!(lines[0].unwrap().to_string(), "50 % found");
    handle.await.unwrap();
    tasks.close(None).await;
    assert_eq!(began.elapsed(), 13 * SECOND);
}

//! Closing: drain, cancel, abort, report, within a bound.

use std::{convert::Infallible, future::pending, sync::mpsc, time::Duration};

use agentflow::{BackgroundTaskManager, SpawnError, TaskContext, TaskEnd, TaskInfo, TaskManagerOptions, TaskOutcome};
use futures::FutureExt;
use tokio::time::{Instant, advance, sleep};

use crate::support::settle;

const SECOND: Duration = Duration::from_secs(1);

fn names(ends: &[TaskEnd]) -> Vec<&str> {
    ends.iter().map(TaskEnd::name).collect()
}

fn still(infos: &[TaskInfo]) -> Vec<&str> {
    infos.iter().map(TaskInfo::name).collect()
}

#[tokio::test(start_paused = true)]
async fn close_lets_tasks_finish_and_returns_when_they_have() {
    let tasks = BackgroundTaskManager::new();
    tasks.create_task(async {}).spawn().unwrap().await.unwrap();
    tasks.create_task(sleep(2 * SECOND)).spawn().unwrap();
    tasks.create_task(async { Err::<(), _>("no route") }).spawn().unwrap();
    let report = tasks.close(Some(30 * SECOND)).await;
    assert_eq!((report.completed, report.failed), (1, 1), "since closing began");
    assert_eq!(report.elapsed, 2 * SECOND);
    assert!(report.is_clean());
    assert_eq!(report.to_string(), "closed in 2.0s: 1 completed, 1 failed");
}

#[tokio::test(start_paused = true)]
async fn what_still_runs_when_the_bound_is_over_is_cut_off_and_named() {
    let options = TaskManagerOptions::new().grace(2 * SECOND);
    let tasks = BackgroundTaskManager::with_options(options);
    let polite = |task: TaskContext| async move {
        task.cancelled().await;
        sleep(SECOND).await;
    };
    tasks.create_task(sleep(SECOND)).name("quick").spawn().unwrap();
    tasks.create_task(pending::<()>()).name("plain").context("user", "ada").spawn().unwrap();
    tasks.create_task_with(polite).name("polite").spawn().unwrap();
    tasks.create_task_with(|_| pending::<()>()).name("stubborn").spawn().unwrap();
    let began = Instant::now();
    let report = tasks.close(Some(5 * SECOND)).await;
    assert_eq!(began.elapsed(), 7 * SECOND, "the bound and the grace");
    assert_eq!((report.completed, report.cancelled, report.aborted), (2, 1, 1));
    assert_eq!(names(&report.cut_off), ["plain", "stubborn"], "the polite one ended by itself");
    assert!(report.still_running.is_empty());
    let text = "closed in 7.0s: 2 completed, 1 cancelled, 1 aborted\n  \
                cut off: plain #2 (cancelled after 5.0s) {\"user\":\"ada\"}\n  \
                cut off: stubborn #4 (aborted after 7.0s)";
    assert_eq!(report.to_string(), text);
}

#[tokio::test(start_paused = true)]
async fn a_spawn_after_close_is_refused_and_its_future_dropped_unpolled() {
    let tasks = BackgroundTaskManager::new();
    tasks.close(None).await;
    let (send, receive) = tokio::sync::oneshot::channel::<()>();
    let work = async move { send.send(()).unwrap() };
    assert_eq!(tasks.create_task(work).spawn().unwrap_err(), SpawnError::Closed);
    receive.await.unwrap_err();
    assert_eq!((tasks.stats().spawned, tasks.stats().rejected), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn while_draining_only_live_tasks_may_spawn() {
    let tasks = BackgroundTaskManager::new();
    let manager = tasks.clone();
    let parent = |task: TaskContext| async move {
        sleep(SECOND).await;
        // Both by its own manager, and by one that it brought along.
        task.manager().create_task(sleep(SECOND)).name("child").spawn().unwrap();
        manager.create_task(sleep(2 * SECOND)).name("other child").spawn().unwrap();
        Ok::<_, Infallible>(task)
    };
    let parent = tasks.create_task_with(parent).spawn().unwrap();
    let closing = tasks.close(None);
    futures::pin_mut!(closing);
    assert!(closing.as_mut().now_or_never().is_none());
    assert_eq!(tasks.create_task(async {}).spawn().unwrap_err(), SpawnError::Closed);
    let ended = parent.await.unwrap();
    // The parent lives no more.
    assert_eq!(ended.manager().create_task(async {}).spawn().unwrap_err(), SpawnError::Closed);
    let report = closing.await;
    assert_eq!((report.completed, report.elapsed), (3, 3 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn once_the_bound_is_over_nothing_may_spawn() {
    let tasks = BackgroundTaskManager::new();
    let work = |task: TaskContext| async move {
        task.cancelled().await;
        task.manager().create_task(pending::<()>()).spawn().map(drop)
    };
    let handle = tasks.create_task_with(work).spawn().unwrap();
    let report = tasks.close(Some(SECOND)).await;
    assert_eq!(report.failed, 1);
    assert_eq!(handle.await.unwrap_err().outcome(), TaskOutcome::Failed);
    assert_eq!(tasks.stats().rejected, 1);
}

#[tokio::test(start_paused = true)]
async fn closers_may_come_at_once_and_all_get_the_whole_truth() {
    let tasks = BackgroundTaskManager::new();
    tasks.create_task(sleep(SECOND)).name("quick").spawn().unwrap();
    tasks.create_task(pending::<()>()).name("stuck").spawn().unwrap();
    let (one, two) = tokio::join!(tasks.close(Some(3 * SECOND)), tasks.close(Some(3 * SECOND)));
    sleep(10 * SECOND).await;
    let began = Instant::now();
    let later = tasks.close(None).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    for report in [one, two, later] {
        assert_eq!((report.completed, report.cancelled, report.elapsed), (1, 1, 3 * SECOND));
        assert_eq!(names(&report.cut_off), ["stuck"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_later_close_with_a_shorter_bound_hastens_the_first() {
    let tasks = BackgroundTaskManager::new();
    tasks.create_task(pending::<()>()).name("stuck").spawn().unwrap();
    let began = Instant::now();
    let patient = async {
        let report = tasks.close(None).await;
        (report, began.elapsed())
    };
    let hasty = async {
        sleep(SECOND).await;
        tasks.close(Some(Duration::ZERO)).await
    };
    let ((patient, elapsed), hasty) = tokio::join!(patient, hasty);
    assert_eq!(elapsed, SECOND);
    assert_eq!((names(&patient.cut_off), names(&hasty.cut_off)), (vec!["stuck"], vec!["stuck"]));
    // A longer bound doesn't lengthen it.
    assert_eq!(tasks.close(Some(60 * SECOND)).await.elapsed, SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_close_that_is_dropped_loses_nothing() {
    let tasks = BackgroundTaskManager::new();
    tasks.create_task(sleep(SECOND)).spawn().unwrap();
    tasks.create_task(pending::<()>()).name("stuck").spawn().unwrap();
    assert!(tasks.close(Some(10 * SECOND)).now_or_never().is_none());
    assert_eq!(tasks.create_task(async {}).spawn().unwrap_err(), SpawnError::Closed);
    sleep(2 * SECOND).await;
    // Dropped once more, in the grace.
    let report = tokio::time::timeout(SECOND, tasks.close(Some(5 * SECOND))).await;
    assert!(report.is_err());
    let report = tasks.close(None).await;
    assert_eq!((report.completed, report.cancelled), (1, 1));
    assert_eq!(report.elapsed, 7 * SECOND, "the shortest bound stays");
    assert_eq!(names(&report.cut_off), ["stuck"]);
}

#[tokio::test(start_paused = true)]
async fn a_task_may_close_its_manager_and_gets_the_report() {
    let tasks = BackgroundTaskManager::new();
    tasks.create_task(pending::<()>()).name("other").spawn().unwrap();
    let manager = tasks.clone();
    let work = async move { Ok::<_, Infallible>(manager.close(Some(SECOND)).await) };
    let report = tasks.create_task(work).name("closer").spawn().unwrap().await.unwrap();
    assert_eq!(names(&report.cut_off), ["other"]);
    assert_eq!(still(&report.still_running), ["closer"]);
    let after = tasks.close(None).await;
    assert!(after.still_running.is_empty());
    assert_eq!((after.completed, after.cancelled), (1, 1));
}

#[tokio::test]
async fn a_blocking_task_does_not_hold_up_the_close() {
    let options = TaskManagerOptions::new().grace(Duration::ZERO);
    let tasks = BackgroundTaskManager::with_options(options);
    let (go, wait) = mpsc::channel::<()>();
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let work = move |_| {
        begun.send(()).unwrap();
        wait.recv().unwrap();
    };
    let handle = tasks.create_blocking_task(work).name("crunch").spawn().unwrap();
    has_begun.await.unwrap();
    let report = tasks.close(Some(Duration::ZERO)).await;
    assert_eq!(still(&report.still_running), ["crunch"]);
    assert!(report.to_string().contains("\n  still running: crunch #1 (for "), "{report}");
    go.send(()).unwrap();
    handle.await.unwrap();
    let after = tasks.close(Some(Duration::ZERO)).await;
    assert!(after.still_running.is_empty());
    assert_eq!(after.completed, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_blocks_its_thread_does_not_hold_up_the_close() {
    let options = TaskManagerOptions::new().grace(Duration::ZERO);
    let tasks = BackgroundTaskManager::with_options(options);
    let (go, wait) = mpsc::channel::<()>();
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let work = async move {
        begun.send(()).unwrap();
        wait.recv().unwrap();
    };
    let handle = tasks.create_task(work).name("hog").spawn().unwrap();
    has_begun.await.unwrap();
    let report = tasks.close(Some(Duration::ZERO)).await;
    assert_eq!(still(&report.still_running), ["hog"]);
    go.send(()).unwrap();
    handle.await.unwrap();
    assert_eq!(tasks.stats().completed, 1, "it never awaited again");
}

#[tokio::test(start_paused = true)]
async fn the_grace_ends_at_the_bound_even_for_a_task_that_came_late_to_its_own() {
    let options = TaskManagerOptions::new().grace(2 * SECOND);
    let tasks = BackgroundTaskManager::with_options(options);
    tasks.create_task_with(|_| pending::<()>()).name("stubborn").spawn().unwrap();
    settle().await;
    let began = Instant::now();
    let closing = tasks.close(Some(Duration::ZERO));
    futures::pin_mut!(closing);
    assert!(closing.as_mut().now_or_never().is_none());
    // The thread is busy for a second: only then does the task see that it was cancelled.
    assert!(advance(SECOND).now_or_never().is_none());
    let report = closing.await;
    assert_eq!(began.elapsed(), 2 * SECOND);
    assert_eq!(names(&report.cut_off), ["stubborn"]);
}

#[tokio::test(start_paused = true)]
async fn a_task_cancelled_before_the_close_is_not_cut_off_by_it() {
    let tasks = BackgroundTaskManager::new();
    let handle = tasks.create_task(pending::<()>()).spawn().unwrap();
    handle.cancel();
    let report = tasks.close(Some(SECOND)).await;
    assert_eq!((report.cancelled, report.is_clean()), (1, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spawn_that_races_with_close_is_either_counted_or_refused() {
    for _ in 0..200 {
        let tasks = BackgroundTaskManager::new();
        let manager = tasks.clone();
        let spawner = tokio::spawn(async move {
            let mut accepted = 0;
            while manager.create_task(tokio::task::yield_now()).spawn().is_ok() {
                accepted += 1;
                tokio::task::yield_now().await;
            }
            accepted
        });
        tokio::task::yield_now().await;
        let report = tasks.close(None).await;
        assert!(report.still_running.is_empty());
        let stats = tasks.stats();
        assert_eq!((stats.active, stats.completed), (0, spawner.await.unwrap()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_holds_its_manager_by_its_context_does_not_keep_it_alive() {
    let tasks = BackgroundTaskManager::new();
    let work = |task: TaskContext| async move {
        let manager = task.manager().clone();
        task.cancelled().await;
        drop(manager);
    };
    let handle = tasks.create_task_with(work).spawn().unwrap();
    settle().await;
    drop(tasks);
    handle.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_task_that_took_an_ended_ones_place_does_not_speak_for_it() {
    let tasks = BackgroundTaskManager::new();
    let ended = tasks.create_task_with(|task| async { Ok::<_, Infallible>(task) }).spawn().unwrap();
    let ended = ended.await.unwrap();
    tasks.create_task(sleep(SECOND)).spawn().unwrap();
    assert!(tasks.close(None).now_or_never().is_none());
    assert_eq!(ended.manager().create_task(async {}).spawn().unwrap_err(), SpawnError::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_shorter_bound_holds_for_all_even_if_its_caller_goes_away() {
    let tasks = BackgroundTaskManager::new();
    tasks.create_task(pending::<()>()).name("stuck").spawn().unwrap();
    let patient = tasks.close(None);
    futures::pin_mut!(patient);
    assert!(patient.as_mut().now_or_never().is_none());
    assert!(tasks.close(Some(SECOND)).now_or_never().is_none());
    let report = tokio::time::timeout(60 * SECOND, patient).await.unwrap();
    assert_eq!((report.elapsed, names(&report.cut_off)), (SECOND, vec!["stuck"]));
}

#[tokio::test(start_paused = true)]
async fn a_second_close_does_not_start_the_grace_again() {
    let options = TaskManagerOptions::new().grace(2 * SECOND);
    let tasks = BackgroundTaskManager::with_options(options);
    let (go, wait) = mpsc::channel::<()>();
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let work = move |_| {
        begun.send(()).unwrap();
        wait.recv().unwrap();
    };
    tasks.create_blocking_task(work).name("crunch").spawn().unwrap();
    has_begun.await.unwrap();
    assert!(tasks.close(Some(Duration::ZERO)).now_or_never().is_none());
    advance(SECOND).await;
    let second = tasks.close(Some(Duration::ZERO));
    futures::pin_mut!(second);
    assert!(second.as_mut().now_or_never().is_none());
    advance(SECOND + Duration::from_millis(200)).await;
    let report = second.now_or_never().unwrap();
    assert_eq!(still(&report.still_running), ["crunch"]);
    go.send(()).unwrap();
}

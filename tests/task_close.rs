//! Closing a manager: drain, cancel, abort, report, within a bound.

use std::{
    convert::Infallible,
    future::pending,
    sync::{Mutex, mpsc},
    time::Duration,
};

use agentflow::{
    BackgroundTaskManager, TaskContext,
    task::{FinishedTask, SpawnError, TaskError, TaskInfo, TaskManagerOptions, TaskOutcome},
};
use futures::{FutureExt, future::BoxFuture};
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
    time::{Instant, advance, sleep},
};

use crate::support::{Journal, settle};

const SECOND: Duration = Duration::from_secs(1);

fn names(ends: &[FinishedTask]) -> Vec<&str> {
    ends.iter().map(FinishedTask::name).collect()
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
    assert_eq!((report.outcomes.completed, report.outcomes.failed), (1, 1), "since closing began");
    assert_eq!(report.elapsed, 2 * SECOND);
    assert!(report.is_clean());
    assert_eq!(report.to_string(), "closed in 2.0s: 1 completed, 1 failed");
}

#[tokio::test(start_paused = true)]
async fn what_still_runs_when_the_bound_is_over_is_cut_off_and_named() {
    let options = TaskManagerOptions::new().grace_period(2 * SECOND);
    let tasks = BackgroundTaskManager::with_options(options);
    let polite = |task: TaskContext| async move {
        task.cancelled().await;
        sleep(SECOND).await;
    };
    tasks.create_task(sleep(SECOND)).name("quick").spawn().unwrap();
    tasks.create_task(pending::<()>()).name("plain").context("user", "ada").spawn().unwrap();
    tasks.create_task_with_context(polite).name("polite").spawn().unwrap();
    tasks.create_task_with_context(|_| pending::<()>()).name("stubborn").spawn().unwrap();
    let began = Instant::now();
    let report = tasks.close(Some(5 * SECOND)).await;
    assert_eq!(began.elapsed(), 7 * SECOND, "the bound and the grace");
    assert_eq!((report.outcomes.completed, report.outcomes.cancelled, report.outcomes.aborted), (2, 1, 1));
    assert_eq!(names(&report.unfinished), ["plain", "stubborn"], "the polite one ended by itself");
    assert!(report.still_running.is_empty());
    let text = "closed in 7.0s: 2 completed, 1 cancelled, 1 aborted\n  \
                unfinished: plain #2 (cancelled after 5.0s) {\"user\":\"ada\"}\n  \
                unfinished: stubborn #4 (aborted after 7.0s)";
    assert_eq!(report.to_string(), text);
}

#[tokio::test(start_paused = true)]
async fn a_report_prints_twenty_lines_at_most_and_keeps_all_tasks() {
    for (tasks_left, last) in
        [(19, "unfinished: stuck #19 (cancelled after 0.0ns)"), (20, "… and 2 more"), (9_720, "… and 9,702 more")]
    {
        let tasks = BackgroundTaskManager::new();
        for _ in 0..tasks_left {
            tasks.create_task(pending::<()>()).name("stuck").spawn().unwrap();
        }
        let report = tasks.close(Some(Duration::ZERO)).await;
        assert_eq!(report.unfinished.len(), tasks_left);
        let text = report.to_string();
        assert_eq!((text.lines().count(), text.lines().last()), (20, Some(&*format!("  {last}"))), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_report_and_a_list_count_the_tasks_that_they_do_not_print() {
    let tasks = BackgroundTaskManager::new();
    for _ in 0..30 {
        tasks.create_task(pending::<()>()).name("stuck").spawn().unwrap();
    }
    let error = tasks.wait_for_all(Some(Duration::ZERO)).await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("30 background tasks still run: stuck #1 (for 0.0ns), stuck #2"), "{text}");
    assert!(text.ends_with(", stuck #20 (for 0.0ns), … and 10 more"), "{text}");

    let closer = |task: TaskContext| async move {
        let report = task.manager().close(Some(Duration::ZERO)).await;
        assert_eq!((report.unfinished.len(), report.still_running.len()), (30, 1));
        let text = report.to_string();
        assert!(text.ends_with("\n  … and 13 more, of which 1 still runs"), "{text}");
    };
    tasks.create_task_with_context(closer).spawn().unwrap().await.unwrap();
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
        // The task spawns through its own manager and through a handle that it captured.
        task.manager().create_task(sleep(SECOND)).name("child").spawn().unwrap();
        manager.create_task(sleep(2 * SECOND)).name("other child").spawn().unwrap();
        Ok::<_, Infallible>(task)
    };
    let parent = tasks.create_task_with_context(parent).spawn().unwrap();
    let closing = tasks.close(None);
    futures::pin_mut!(closing);
    assert!(closing.as_mut().now_or_never().is_none());
    assert_eq!(tasks.create_task(async {}).spawn().unwrap_err(), SpawnError::Closed);
    let ended = parent.await.unwrap();
    // The parent has ended.
    assert_eq!(ended.manager().create_task(async {}).spawn().unwrap_err(), SpawnError::Closed);
    let report = closing.await;
    assert_eq!((report.outcomes.completed, report.elapsed), (3, 3 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn once_the_bound_is_over_nothing_may_spawn() {
    let tasks = BackgroundTaskManager::new();
    let work = |task: TaskContext| async move {
        task.cancelled().await;
        task.manager().create_task(pending::<()>()).spawn().map(drop)
    };
    let handle = tasks.create_task_with_context(work).spawn().unwrap();
    let report = tasks.close(Some(SECOND)).await;
    assert_eq!(report.outcomes.failed, 1);
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
        assert_eq!((report.outcomes.completed, report.outcomes.cancelled, report.elapsed), (1, 1, 3 * SECOND));
        assert_eq!(names(&report.unfinished), ["stuck"]);
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
    assert_eq!((names(&patient.unfinished), names(&hasty.unfinished)), (vec!["stuck"], vec!["stuck"]));
    // A longer bound does not extend the close.
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
    // The call is dropped again, in the grace period.
    let report = tokio::time::timeout(SECOND, tasks.close(Some(5 * SECOND))).await;
    assert!(report.is_err());
    let report = tasks.close(None).await;
    assert_eq!((report.outcomes.completed, report.outcomes.cancelled), (1, 1));
    assert_eq!(report.elapsed, 7 * SECOND, "the shortest bound stays");
    assert_eq!(names(&report.unfinished), ["stuck"]);
}

#[tokio::test(start_paused = true)]
async fn a_task_may_close_its_manager_and_gets_the_report() {
    let tasks = BackgroundTaskManager::new();
    tasks.create_task(pending::<()>()).name("other").spawn().unwrap();
    let manager = tasks.clone();
    let work = async move { Ok::<_, Infallible>(manager.close(Some(SECOND)).await) };
    let report = tasks.create_task(work).name("closer").spawn().unwrap().await.unwrap();
    assert_eq!(names(&report.unfinished), ["other"]);
    assert_eq!(still(&report.still_running), ["closer"]);
    let after = tasks.close(None).await;
    assert!(after.still_running.is_empty());
    assert_eq!((after.outcomes.completed, after.outcomes.cancelled), (1, 1));
}

#[tokio::test]
async fn a_blocking_task_does_not_hold_up_the_close() {
    let options = TaskManagerOptions::new().grace_period(Duration::ZERO);
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
    assert_eq!(after.outcomes.completed, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_blocks_its_thread_does_not_hold_up_the_close() {
    let options = TaskManagerOptions::new().grace_period(Duration::ZERO);
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
    assert_eq!(tasks.stats().outcomes.completed, 1, "it never awaited again");
}

#[tokio::test(start_paused = true)]
async fn the_grace_ends_at_the_bound_even_for_a_task_that_came_late_to_its_own() {
    let options = TaskManagerOptions::new().grace_period(2 * SECOND);
    let tasks = BackgroundTaskManager::with_options(options);
    tasks.create_task_with_context(|_| pending::<()>()).name("stubborn").spawn().unwrap();
    settle().await;
    let began = Instant::now();
    let closing = tasks.close(Some(Duration::ZERO));
    futures::pin_mut!(closing);
    assert!(closing.as_mut().now_or_never().is_none());
    // The thread is busy for a second, and the task sees its cancellation only afterwards.
    assert!(advance(SECOND).now_or_never().is_none());
    let report = closing.await;
    assert_eq!(began.elapsed(), 2 * SECOND);
    assert_eq!(names(&report.unfinished), ["stubborn"]);
}

#[tokio::test(start_paused = true)]
async fn without_a_grace_period_a_task_is_polled_once_after_its_cancellation() {
    let options = TaskManagerOptions::new().grace_period(Duration::ZERO);
    let tasks = BackgroundTaskManager::with_options(options);
    let plain = tasks.create_task(pending::<()>()).spawn().unwrap();
    let listens = tasks.create_task_with_context(|task| async move { task.cancelled().await }).spawn().unwrap();
    let stubborn = tasks.create_task_with_context(|_| pending::<()>()).spawn().unwrap();
    settle().await;
    let report = tasks.close(Some(Duration::ZERO)).await;
    assert!(matches!(plain.await, Err(TaskError::Cancelled)));
    assert!(listens.await.is_ok());
    assert!(matches!(stubborn.await, Err(TaskError::Aborted)));
    assert_eq!(report.still_running.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_task_cancelled_before_the_close_is_not_cut_off_by_it() {
    let tasks = BackgroundTaskManager::new();
    let handle = tasks.create_task(pending::<()>()).spawn().unwrap();
    handle.cancel();
    let report = tasks.close(Some(SECOND)).await;
    assert_eq!((report.outcomes.cancelled, report.is_clean()), (1, true));
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
        assert_eq!((stats.active, stats.outcomes.completed), (0, spawner.await.unwrap()));
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
    let handle = tasks.create_task_with_context(work).spawn().unwrap();
    settle().await;
    drop(tasks);
    handle.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reused_slab_entry_does_not_grant_the_rights_of_the_ended_task() {
    let tasks = BackgroundTaskManager::new();
    let ended = tasks.create_task_with_context(|task| async { Ok::<_, Infallible>(task) }).spawn().unwrap();
    let ended = ended.await.unwrap();
    tasks.create_task(sleep(SECOND)).spawn().unwrap();
    assert!(tasks.close(None).now_or_never().is_none());
    assert_eq!(ended.manager().create_task(async {}).spawn().unwrap_err(), SpawnError::Closed);
}

#[tokio::test(start_paused = true)]
async fn the_shortest_bound_holds_even_if_its_caller_is_dropped() {
    let tasks = BackgroundTaskManager::new();
    tasks.create_task(pending::<()>()).name("stuck").spawn().unwrap();
    let patient = tasks.close(None);
    futures::pin_mut!(patient);
    assert!(patient.as_mut().now_or_never().is_none());
    assert!(tasks.close(Some(SECOND)).now_or_never().is_none());
    let report = tokio::time::timeout(60 * SECOND, patient).await.unwrap();
    assert_eq!((report.elapsed, names(&report.unfinished)), (SECOND, vec!["stuck"]));
}

#[tokio::test(start_paused = true)]
async fn a_second_close_does_not_restart_the_grace_period() {
    let options = TaskManagerOptions::new().grace_period(2 * SECOND);
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

// ---- Graces of their own.

fn with_grace(grace: Duration) -> BackgroundTaskManager {
    BackgroundTaskManager::with_options(TaskManagerOptions::new().grace_period(grace))
}

fn lines<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

#[tokio::test(start_paused = true)]
async fn a_close_waits_for_the_longest_grace_period() {
    let tasks = with_grace(3 * SECOND);
    let spawn = |name: &'static str| tasks.create_task_with_context(|_| pending::<()>()).name(name);
    spawn("shorter").grace_period(SECOND).spawn().unwrap();
    spawn("longer").grace_period(9 * SECOND).spawn().unwrap();
    spawn("managers").spawn().unwrap();
    let report = tasks.close(Some(5 * SECOND)).await;
    let expected =
        ["shorter #1 (aborted after 6.0s)", "managers #3 (aborted after 8.0s)", "longer #2 (aborted after 14.0s)"];
    assert_eq!(lines(&report.unfinished), expected);
    assert_eq!(report.elapsed, 14 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_close_waits_no_longer_than_the_grace_periods_of_the_remaining_tasks() {
    let tasks = with_grace(60 * SECOND);
    tasks.create_task_with_context(|_| pending::<()>()).name("stubborn").grace_period(SECOND).spawn().unwrap();
    tasks.create_task(pending::<()>()).name("plain").spawn().unwrap();
    assert_eq!(tasks.close(Some(SECOND)).await.elapsed, 2 * SECOND);
}

// ---- Those that must finish.

/// Spawns a task that, once cancelled, takes this much longer to end.
fn ends_in(tasks: &BackgroundTaskManager, journal: &Journal, name: &'static str, time: Duration) -> bool {
    let journal = journal.clone();
    let work = move |task: TaskContext| async move {
        task.cancelled().await;
        journal.add(format!("{name} told"));
        sleep(time).await;
        journal.add(format!("{name} ends"));
    };
    let builder = tasks.create_task_with_context(work).name(name);
    if name.starts_with("must") { builder.cancel_last().spawn() } else { builder.spawn() }.is_ok()
}

#[tokio::test(start_paused = true)]
async fn cancel_last_tasks_are_cancelled_when_the_others_have_ended() {
    let (tasks, journal) = (with_grace(5 * SECOND), Journal::default());
    ends_in(&tasks, &journal, "must", SECOND);
    ends_in(&tasks, &journal, "other", 2 * SECOND);
    tasks.create_task(pending::<()>()).name("plain").spawn().unwrap();
    let report = tasks.close(Some(SECOND)).await;
    assert_eq!(journal.entries(), ["other told", "other ends", "must told", "must ends"]);
    assert_eq!(report.elapsed, 4 * SECOND, "the bound, two for the other, one for its own");
    assert_eq!((report.outcomes.completed, names(&report.unfinished)), (2, vec!["plain"]));
}

#[tokio::test(start_paused = true)]
async fn cancel_last_tasks_are_cancelled_when_the_others_grace_periods_are_over() {
    let (tasks, journal) = (with_grace(5 * SECOND), Journal::default());
    ends_in(&tasks, &journal, "must", SECOND);
    ends_in(&tasks, &journal, "too slow", 60 * SECOND);
    let report = tasks.close(Some(SECOND)).await;
    assert_eq!(journal.entries(), ["too slow told", "must told", "must ends"]);
    assert_eq!(report.elapsed, 7 * SECOND);
    assert_eq!(lines(&report.unfinished), ["too slow #2 (aborted after 6.0s)"]);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_last_task_without_a_token_has_its_grace_period() {
    let tasks = with_grace(2 * SECOND);
    let (one, two, three) = (sleep(2 * SECOND), sleep(5 * SECOND), pending::<()>());
    tasks.create_task(one).name("in time").cancel_last().spawn().unwrap();
    tasks.create_task(two).name("by its own grace").cancel_last().grace_period(9 * SECOND).spawn().unwrap();
    tasks.create_task(three).name("never").cancel_last().context("user", "ada").spawn().unwrap();
    let report = tasks.close(Some(SECOND)).await;
    assert_eq!((report.outcomes.completed, report.outcomes.aborted, report.elapsed), (2, 1, 5 * SECOND));
    assert_eq!(lines(&report.unfinished), [r#"never #3 (aborted after 3.0s) {"user":"ada"}"#]);
}

#[tokio::test(start_paused = true)]
async fn a_queued_cancel_last_task_waits_and_runs_within_its_grace_period() {
    let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().max_running(1).grace_period(2 * SECOND));
    tasks.create_task(sleep(2 * SECOND)).name("first").cancel_last().spawn().unwrap();
    tasks.create_task(sleep(Duration::from_millis(500))).name("second").cancel_last().spawn().unwrap();
    tasks.create_task(pending::<()>()).name("third").cancel_last().spawn().unwrap();
    tasks.create_task(async {}).name("fourth").cancel_last().spawn().unwrap();
    let report = tasks.close(Some(SECOND)).await;
    assert_eq!((report.outcomes.completed, report.outcomes.aborted, report.still_running.len()), (2, 2, 0));
    let mut unfinished = lines(&report.unfinished);
    unfinished.sort();
    assert_eq!(unfinished, ["fourth #4 (aborted after 3.0s)", "third #3 (aborted after 3.0s)"]);
}

#[test]
fn a_queued_cancel_last_task_starts_in_the_slot_of_a_cancelled_one() {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    for round in 0..200 {
        runtime.block_on(async {
            let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().max_running(1));
            tasks.create_task(pending::<()>()).spawn().unwrap();
            let must = tasks.create_task(async {}).cancel_last().spawn().unwrap();
            let report = tasks.close(Some(Duration::ZERO)).await;
            assert!(must.await.is_ok(), "round {round}: {report}");
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_queued_cancel_last_task_may_start_while_the_others_are_cancelled() {
    let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().max_running(1).grace_period(2 * SECOND));
    tasks.create_task(pending::<()>()).name("other").spawn().unwrap();
    let must = tasks.create_task(async { Ok::<_, Infallible>("saved") }).cancel_last().spawn().unwrap();
    let report = tasks.close(Some(SECOND)).await;
    assert_eq!(must.await.unwrap(), "saved");
    assert_eq!((report.outcomes.completed, names(&report.unfinished)), (1, vec!["other"]));
}

#[tokio::test(start_paused = true)]
async fn a_close_is_bounded_whatever_the_tasks_do() {
    let tasks = with_grace(2 * SECOND);
    let blocks = || {
        let ((go, wait), (begun, has_begun)) = (mpsc::channel::<()>(), oneshot::channel());
        let work = move |_: TaskContext| {
            begun.send(()).unwrap();
            wait.recv().unwrap();
        };
        (go, has_begun, work)
    };
    let ((go_one, one, first), (go_two, two, second)) = (blocks(), blocks());
    tasks.create_blocking_task(first).name("blocks").spawn().unwrap();
    let must = tasks.create_blocking_task(second).name("must").cancel_last();
    must.grace_period(3 * SECOND).spawn().unwrap();
    one.await.unwrap();
    two.await.unwrap();
    let began = Instant::now();
    let mut closing = Box::pin(tasks.close(Some(SECOND)));
    // The paused clock does not advance by itself while a blocking task runs.
    let report = loop {
        if let Some(report) = closing.as_mut().now_or_never() {
            break report;
        }
        advance(Duration::from_millis(50)).await;
    };
    // The bound, then the grace period and its margin of each of the two waves.
    let (bound, first, last) = (1_000, 2_000 + 100, 3_000 + 100);
    assert_eq!(began.elapsed(), Duration::from_millis(bound + first + last));
    assert_eq!(still(&report.still_running), ["blocks", "must"]);
    go_one.send(()).unwrap();
    go_two.send(()).unwrap();
    tasks.wait_for_all(None).await.unwrap();
    let report = tasks.close(None).await;
    assert_eq!((report.outcomes.completed, report.still_running.len()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn concurrent_closes_wait_for_cancel_last_tasks_together() {
    let (tasks, journal) = (with_grace(5 * SECOND), Journal::default());
    ends_in(&tasks, &journal, "must", 2 * SECOND);
    ends_in(&tasks, &journal, "other", SECOND);
    let later = async {
        // One call comes in the first wave's grace period, one in the second's.
        sleep(3 * SECOND / 2).await;
        let one = tasks.close(Some(Duration::ZERO));
        let two = async {
            sleep(SECOND).await;
            tasks.close(None).await
        };
        tokio::join!(one, two)
    };
    let (first, (second, third)) = tokio::join!(tasks.close(Some(SECOND)), later);
    assert_eq!(journal.entries(), ["other told", "other ends", "must told", "must ends"]);
    assert_eq!(first.elapsed, 4 * SECOND);
    for other in [second, third] {
        assert_eq!(format!("{first:?}"), format!("{other:?}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_last_task_may_close_its_manager() {
    let tasks = with_grace(2 * SECOND);
    tasks.create_task_with_context(|_| pending::<()>()).name("other").spawn().unwrap();
    tasks.create_task(pending::<()>()).name("must").cancel_last().spawn().unwrap();
    let manager = tasks.clone();
    let work = async move { Ok::<_, Infallible>(manager.close(Some(SECOND)).await) };
    let report = tasks.create_task(work).name("closer").cancel_last().spawn().unwrap().await.unwrap();
    assert_eq!(report.elapsed, 5 * SECOND);
    assert_eq!(lines(&report.unfinished), ["other #1 (aborted after 3.0s)", "must #2 (aborted after 5.0s)"]);
    assert_eq!(still(&report.still_running), ["closer"]);
}

#[tokio::test(start_paused = true)]
async fn a_close_without_a_bound_never_cancels_a_cancel_last_task() {
    for bound in [None, Some(Duration::MAX)] {
        let (tasks, journal) = (with_grace(Duration::MAX), Journal::default());
        let spawn = |work| tasks.create_task(work).cancel_last().spawn().unwrap();
        spawn(sleep(86_400 * SECOND));
        let report = tasks.close(bound).await;
        assert!(report.is_clean());
        assert_eq!((report.outcomes.completed, report.elapsed), (1, 86_400 * SECOND));
        assert_eq!(journal.entries(), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_endless_grace_period_lasts_until_the_task_ends() {
    let (tasks, journal) = (with_grace(Duration::MAX), Journal::default());
    ends_in(&tasks, &journal, "must", 3_600 * SECOND);
    ends_in(&tasks, &journal, "other", 3_600 * SECOND);
    let report = tasks.close(Some(Duration::ZERO)).await;
    assert_eq!((report.outcomes.completed, report.elapsed), (2, 7_200 * SECOND));
    assert!(report.is_clean());
}

// ---- Tasks that don't want to end.

/// Spawns its successor until a spawn is refused.
fn link(task: TaskContext, pause: Option<Duration>) -> BoxFuture<'static, Result<(), SpawnError>> {
    Box::pin(async move {
        match pause {
            Some(pause) => sleep(pause).await,
            None => tokio::task::yield_now().await,
        }
        task.manager().create_task_with_context(move |task| link(task, pause)).name("link").spawn().map(drop)
    })
}

#[tokio::test(start_paused = true)]
async fn a_chain_of_tasks_ends_at_the_bound() {
    let tasks = with_grace(2 * SECOND);
    tasks.create_task_with_context(|task| link(task, Some(Duration::from_millis(10)))).spawn().unwrap();
    let report = tasks.close(Some(SECOND)).await;
    // The last task waits for its cancellation, but its spawn is refused within the grace period.
    assert_eq!(report.outcomes.failed, 1);
    assert!(report.outcomes.completed >= 90, "{report}");
    assert!(report.elapsed <= SECOND + Duration::from_millis(20), "{report}");
    assert_eq!((tasks.task_count(), tasks.stats().rejected), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_tasks_without_pauses_ends_with_the_close() {
    let tasks = BackgroundTaskManager::new();
    for _ in 0..4 {
        tasks.create_task_with_context(|task| link(task, None)).spawn().unwrap();
    }
    let report = tasks.close(Some(Duration::from_millis(1))).await;
    assert!(report.still_running.is_empty(), "{report}");
    let stats = tasks.stats();
    assert_eq!((stats.active, stats.outcomes.failed, stats.rejected), (0, 4, 4), "{stats}");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ignores_its_cancellation_is_aborted_after_its_grace_period() {
    let tasks = with_grace(2 * SECOND);
    let swallows = |task: TaskContext| async move {
        loop {
            task.cancelled().await;
            sleep(Duration::from_millis(300)).await;
        }
        #[allow(unreachable_code, reason = "it says what the task returns")]
        Ok::<_, Infallible>(())
    };
    tasks.create_task_with_context(swallows).name("swallows").spawn().unwrap();
    let report = tasks.close(Some(SECOND)).await;
    assert_eq!(lines(&report.unfinished), ["swallows #1 (aborted after 3.0s)"]);
}

// ---- Runtimes that shut down.

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap()
}

/// Creates a runtime with a clock of its own, which is not paused.
fn elsewhere() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

#[test]
fn a_close_on_another_runtime_reports_tasks_dropped_by_their_runtime() {
    let home = runtime();
    let _entered = home.enter();
    let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().max_running(1));
    let handles = [(); 3].map(|()| tasks.create_task(pending::<()>()).spawn().unwrap());
    let elsewhere = elsewhere();
    let report = elsewhere.block_on(async {
        let mut closing = Box::pin(tasks.close(None));
        assert!(closing.as_mut().now_or_never().is_none());
        home.shutdown_background();
        closing.await
    });
    assert_eq!((report.outcomes.aborted, report.still_running.len(), report.unfinished.len()), (3, 0, 0));
    for handle in handles {
        assert_eq!(elsewhere.block_on(handle).unwrap_err().outcome(), TaskOutcome::Aborted);
    }
    assert_eq!((tasks.stats().active, tasks.stats().queued), (0, 0));
    assert_eq!(elsewhere.block_on(tasks.close(None)).outcomes.aborted, 3);
}

/// Spawns a task that blocks its thread until the sender is used or dropped.
fn hog(tasks: &BackgroundTaskManager) -> mpsc::Sender<()> {
    let (go, wait) = mpsc::channel::<()>();
    let (begun, has_begun) = mpsc::channel();
    let wait = Mutex::new(wait);
    let work = async move {
        begun.send(()).unwrap();
        wait.lock().unwrap().recv().unwrap();
    };
    tasks.create_task(work).name("hog").spawn().unwrap();
    has_begun.recv().unwrap();
    go
}

#[test]
fn a_close_on_another_runtime_is_bounded_while_the_tasks_runtime_is_blocked() {
    let home = runtime();
    let tasks =
        home.block_on(async { BackgroundTaskManager::with_options(TaskManagerOptions::new().grace_period(SECOND)) });
    let go = hog(&tasks);
    let waits = elsewhere().block_on(tasks.wait_for_all(Some(SECOND)));
    assert_eq!(still(&waits.unwrap_err().still_running), ["hog"]);
    let report = elsewhere().block_on(tasks.close(Some(2 * SECOND)));
    assert_eq!((still(&report.still_running), report.elapsed), (vec!["hog"], Duration::from_millis(3_100)));
    go.send(()).unwrap();
}

#[test]
fn a_close_on_a_runtime_without_a_timer_is_bounded_if_the_tasks_runtime_has_one() {
    let home = runtime();
    let tasks = home.block_on(async { BackgroundTaskManager::new() });
    tasks.create_task(pending::<()>()).spawn().unwrap();
    let without_timer = Builder::new_current_thread().build().unwrap();
    let report = without_timer.block_on(tasks.close(Some(Duration::from_millis(1))));
    assert_eq!((report.outcomes.cancelled, report.still_running.len()), (1, 0));
}

#[test]
fn a_close_on_another_runtime_is_bounded_while_the_tasks_runtime_shuts_down() {
    let home = runtime();
    let tasks = home.block_on(async { BackgroundTaskManager::new() });
    let go = hog(&tasks);
    let report = elsewhere().block_on(async {
        let mut closing = Box::pin(tasks.close(Some(2 * SECOND)));
        assert!(closing.as_mut().now_or_never().is_none());
        // The hog delays the runtime's end, and one runtime cannot wait for another on its own thread.
        std::thread::spawn(move || home.shutdown_timeout(Duration::from_millis(1))).join().unwrap();
        closing.await
    });
    assert_eq!(still(&report.still_running), ["hog"]);
    go.send(()).unwrap();
}

#[test]
fn a_blocking_task_that_outlives_its_runtime_still_runs_for_the_manager() {
    let home = runtime();
    let tasks = home.block_on(async { BackgroundTaskManager::new() });
    let (go, wait) = mpsc::channel::<()>();
    let (begun, has_begun) = oneshot::channel();
    let work = move |_| {
        begun.send(()).unwrap();
        wait.recv().unwrap();
    };
    let handle = tasks.create_blocking_task(work).spawn().unwrap();
    home.block_on(has_begun).unwrap();
    home.shutdown_background();
    let report = elsewhere().block_on(tasks.close(Some(SECOND)));
    assert_eq!(report.still_running.len(), 1);
    go.send(()).unwrap();
    // Its end is that of the closure.
    elsewhere().block_on(handle).unwrap();
    assert_eq!((tasks.stats().outcomes.completed, tasks.task_count()), (1, 0));
}

//! How many tasks there may be, how many may run, and what becomes of the others.

use std::{
    convert::Infallible,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use agentflow::{
    BackgroundTaskManager, TaskContext,
    task::{
        FinishedTask, OnDuplicateKey, OnFull, SpawnError, TaskError, TaskHandle, TaskInfo, TaskManagerOptions,
        TaskOutcome, TaskState, TaskStats, TimeoutKind,
    },
};
use futures::{FutureExt, future::BoxFuture};
use tokio::{
    sync::oneshot,
    time::{Instant, advance, sleep},
};
use tracing::Level;

use crate::support::{Journal, OnDrop, capture, settle};

const SECOND: Duration = Duration::from_secs(1);

fn with_options(options: TaskManagerOptions) -> BackgroundTaskManager {
    BackgroundTaskManager::with_options(options)
}

/// No more than so many in flight.
fn at_most(tasks: usize) -> BackgroundTaskManager {
    with_options(TaskManagerOptions::new().max_tasks(tasks))
}

fn dropping_the_oldest(tasks: usize) -> TaskManagerOptions {
    TaskManagerOptions::new().max_tasks(tasks).on_full(OnFull::DropOldest)
}

fn one_at_a_time() -> BackgroundTaskManager {
    with_options(TaskManagerOptions::new().max_running(1))
}

/// A second from when it begins: a bare `sleep` would count from where it is made.
async fn a_second() {
    sleep(SECOND).await;
}

/// Spawns a task that runs until it is stopped.
fn endless(tasks: &BackgroundTaskManager, name: &'static str) -> TaskHandle<()> {
    tasks.create_task(pending::<()>()).name(name).spawn().unwrap()
}

/// A future that runs until the sender is dropped.
fn until_told() -> (oneshot::Sender<()>, impl Future<Output = ()> + Send + 'static) {
    let (go, wait) = oneshot::channel::<()>();
    (go, async move { drop(wait.await) })
}

fn live(tasks: &BackgroundTaskManager) -> Vec<(String, TaskState)> {
    tasks.task_info().iter().map(|task| (task.name().to_owned(), task.state())).collect()
}

fn names(tasks: &BackgroundTaskManager) -> Vec<String> {
    tasks.task_info().iter().map(|task| task.name().to_owned()).collect()
}

#[track_caller]
fn assert_adds_up(stats: &TaskStats) {
    let ended = [
        stats.outcomes.completed,
        stats.outcomes.failed,
        stats.outcomes.panicked,
        stats.outcomes.timed_out,
        stats.outcomes.cancelled,
        stats.outcomes.aborted,
    ];
    let ended: u64 = ended.iter().sum::<u64>() + stats.outcomes.evicted;
    assert_eq!(stats.spawned, stats.active + ended, "{stats:?}");
    assert!(stats.queued <= stats.active, "{stats:?}");
}

// ---- Places: `max_tasks`.

#[tokio::test(start_paused = true)]
async fn a_spawn_beyond_the_limit_is_refused_counted_and_logged_once_and_its_future_dropped_unpolled() {
    let (log, _guard) = capture();
    let tasks = at_most(2);
    let first = endless(&tasks, "first");
    endless(&tasks, "second");
    let (send, receive) = oneshot::channel::<()>();
    let work = async move { send.send(()).unwrap() };
    assert_eq!(tasks.create_task(work).name("third").spawn().unwrap_err(), SpawnError::Full);
    receive.await.unwrap_err();
    let stats = tasks.stats();
    assert_eq!((stats.spawned, stats.active, stats.rejected), (2, 2, 1));
    let lines = log.ends();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!((lines[0].level, lines[0].field("name")), (Level::DEBUG, "third"));
    assert_eq!(lines[0].field("reason"), SpawnError::Full.to_string());

    // The others go on, and the place of one that ended is free again.
    settle().await;
    assert_eq!(names(&tasks), ["first", "second"]);
    first.cancel();
    first.await.unwrap_err();
    endless(&tasks, "fourth");
    assert_eq!(names(&tasks), ["second", "fourth"]);
}

#[tokio::test(start_paused = true)]
async fn tasks_that_wait_for_their_turn_take_up_places_too() {
    let tasks = with_options(TaskManagerOptions::new().max_tasks(3).max_running(1));
    for _ in 0..3 {
        endless(&tasks, "task");
    }
    assert_eq!(tasks.create_task(async {}).spawn().unwrap_err(), SpawnError::Full);
    assert_eq!((tasks.stats().active, tasks.stats().queued), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_no_tasks_is_one_of_one() {
    let tasks = at_most(0);
    endless(&tasks, "one");
    assert_eq!(tasks.create_task(async {}).spawn().unwrap_err(), SpawnError::Full);
}

#[tokio::test(start_paused = true)]
async fn whoever_spawns_is_not_dropped_for_it_nor_are_those_that_spawned_it() {
    let tasks = with_options(dropping_the_oldest(2));
    let parent = |task: TaskContext| async move {
        let child = |task: TaskContext| async move {
            let grandchild = task.manager().create_task(pending::<()>()).spawn();
            assert_eq!(grandchild.unwrap_err(), SpawnError::Full);
        };
        task.manager().create_task_with_context(child).spawn()?.await.unwrap();
        Ok::<_, SpawnError>(())
    };
    tasks.create_task_with_context(parent).spawn().unwrap().await.unwrap();
    assert_eq!((tasks.stats().outcomes.completed, tasks.stats().outcomes.evicted), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn so_many_dropped_tasks_may_wait_to_be_dropped_and_no_more() {
    let tasks = with_options(dropping_the_oldest(10));
    let spawned = (0..5_000).filter(|_| tasks.create_task(pending::<()>()).spawn().is_ok()).count();
    // Nobody had a chance to drop any of them.
    assert_eq!((spawned, tasks.task_count()), (1_010, 1_010));
    settle().await;
    assert_eq!(tasks.task_count(), 10);
    endless(&tasks, "next");
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_spawn_wait_does_not_wait() {
    let tasks = BackgroundTaskManager::new();
    endless(&tasks, "first");
    let handle = tasks.create_task(async { Ok::<_, Infallible>(7) }).spawn_wait().now_or_never().unwrap();
    assert_eq!(handle.unwrap().await.unwrap(), 7);
}

#[tokio::test(start_paused = true)]
async fn spawn_wait_spawns_when_a_place_gets_free() {
    let tasks = at_most(1);
    let (go, work) = until_told();
    tasks.create_task(work).spawn().unwrap();
    let waiting = tasks.create_task(async {}).name("waiting").spawn_wait();
    futures::pin_mut!(waiting);
    assert!(waiting.as_mut().now_or_never().is_none());
    settle().await;
    assert!(waiting.as_mut().now_or_never().is_none());
    let stats = tasks.stats();
    assert_eq!((stats.spawned, stats.rejected), (1, 0), "it is not counted while it waits");
    drop(go);
    waiting.await.unwrap().await.unwrap();
    let stats = tasks.stats();
    assert_eq!((stats.spawned, stats.outcomes.completed, stats.rejected), (2, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_spawn_wait_that_is_dropped_leaves_nothing_behind() {
    let (log, _guard) = capture();
    let tasks = at_most(1);
    let (go, work) = until_told();
    tasks.create_task(work).spawn().unwrap();
    let (send, receive) = oneshot::channel::<()>();
    {
        let waiting = tasks.create_task(async move { send.send(()).unwrap() }).spawn_wait();
        futures::pin_mut!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
    }
    receive.await.unwrap_err();
    assert_eq!((tasks.stats().spawned, tasks.stats().rejected), (1, 0));
    assert!(log.ends().is_empty());
    drop(go);
    tasks.wait_for_all(None).await.unwrap();
    // And the place is nobody's.
    tasks.create_task(async {}).spawn().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_is_dropped_when_its_place_came_passes_it_on() {
    let tasks = at_most(1);
    let (go, work) = until_told();
    tasks.create_task(work).spawn().unwrap();
    let mut first = Box::pin(tasks.create_task(async {}).name("first").spawn_wait());
    let mut second = Box::pin(tasks.create_task(async {}).name("second").spawn_wait());
    assert!(first.as_mut().now_or_never().is_none());
    assert!(second.as_mut().now_or_never().is_none());
    drop(go);
    tasks.wait_for_all(None).await.unwrap();
    drop(first);
    assert!(second.now_or_never().unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_a_place_get_it_in_the_order_in_which_they_came() {
    let tasks = at_most(1);
    let journal = Journal::default();
    endless(&tasks, "first").cancel();
    let waiters = (0..5).map(|number| {
        let journal = journal.clone();
        let work = async move {
            sleep(SECOND).await;
            journal.add(number.to_string());
        };
        tasks.create_task(work).spawn_wait()
    });
    for spawned in futures::future::join_all(waiters).await {
        drop(spawned.unwrap());
    }
    tasks.wait_for_all(None).await.unwrap();
    assert_eq!(journal.entries(), ["0", "1", "2", "3", "4"]);
}

#[tokio::test(start_paused = true)]
async fn whoever_takes_a_place_without_waiting_costs_nobody_the_place_in_the_line() {
    let tasks = at_most(1);
    let (go, work) = until_told();
    tasks.create_task(work).spawn().unwrap();
    let mut first = Box::pin(tasks.create_task(pending::<()>()).name("first").spawn_wait());
    let mut second = Box::pin(tasks.create_task(pending::<()>()).name("second").spawn_wait());
    assert!(first.as_mut().now_or_never().is_none());
    assert!(second.as_mut().now_or_never().is_none());
    drop(go);
    tasks.wait_for_all(None).await.unwrap();
    // Before the first one that waits looks, somebody else spawns.
    let barged = endless(&tasks, "barged");
    assert!(first.as_mut().now_or_never().is_none());
    barged.cancel();
    barged.await.unwrap_err();
    assert!(second.as_mut().now_or_never().is_none(), "it is not its turn");
    assert_eq!(first.await.unwrap().name(), "first");
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_who_waits_does_not_overtake_those_who_waited_before() {
    let tasks = at_most(1);
    let (go, work) = until_told();
    tasks.create_task(work).spawn().unwrap();
    let mut first = Box::pin(tasks.create_task(pending::<()>()).name("first").spawn_wait());
    assert!(first.as_mut().now_or_never().is_none());
    drop(go);
    tasks.wait_for_all(None).await.unwrap();
    let mut newcomer = Box::pin(tasks.create_task(pending::<()>()).name("newcomer").spawn_wait());
    assert!(newcomer.as_mut().now_or_never().is_none());
    assert_eq!(first.await.unwrap().name(), "first");
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_needs_its_place_no_more_passes_it_on() {
    let tasks = at_most(2);
    let (go_one, one) = until_told();
    let (go_two, two) = until_told();
    let one = tasks.create_task(one).spawn().unwrap();
    let two = tasks.create_task(two).spawn().unwrap();
    let singleton = || tasks.create_task(pending::<()>()).key("k", OnDuplicateKey::Skip).spawn_wait();
    let mut first = Box::pin(singleton());
    let mut second = Box::pin(singleton());
    let mut third = Box::pin(tasks.create_task(pending::<()>()).name("third").spawn_wait());
    for waiting in [&mut first, &mut second] {
        assert!(waiting.as_mut().now_or_never().is_none());
    }
    assert!(third.as_mut().now_or_never().is_none());
    drop(go_one);
    one.await.unwrap();
    assert!(first.now_or_never().unwrap().is_ok());
    drop(go_two);
    two.await.unwrap();
    assert_eq!(second.now_or_never().unwrap().unwrap_err(), SpawnError::DuplicateKey);
    assert_eq!(third.now_or_never().unwrap().unwrap().name(), "third");
}

#[tokio::test(start_paused = true)]
async fn a_close_wakes_those_who_wait_for_a_place_and_are_refused() {
    let tasks = at_most(1);
    endless(&tasks, "stuck");
    let mut waiters: Vec<_> = (0..3).map(|_| Box::pin(tasks.create_task(async {}).spawn_wait())).collect();
    for waiting in &mut waiters {
        assert!(waiting.as_mut().now_or_never().is_none());
    }
    let closing = tasks.close(None);
    futures::pin_mut!(closing);
    assert!(closing.as_mut().now_or_never().is_none());
    // They don't belong to live tasks: no place will ever be theirs, though the manager only drains.
    for waiting in futures::future::join_all(waiters).await {
        assert_eq!(waiting.unwrap_err(), SpawnError::Closed);
    }
    assert_eq!(tasks.stats().rejected, 3);
}

#[tokio::test(start_paused = true)]
async fn while_draining_a_place_goes_to_the_child_that_waits_for_it() {
    let tasks = at_most(2);
    let (go, work) = until_told();
    tasks.create_task(work).name("first").spawn().unwrap();
    let parent = |task: TaskContext| async move {
        // Behind somebody who has no right to spawn once the manager drains.
        sleep(SECOND).await;
        task.manager().create_task(async {}).spawn_wait().await.map(drop)
    };
    let parent = tasks.create_task_with_context(parent).name("parent").spawn().unwrap();
    let manager = tasks.clone();
    let owner = tokio::spawn(async move { manager.create_task(async {}).spawn_wait().await.map(drop) });
    sleep(2 * SECOND).await;
    let closing = tokio::spawn({
        let tasks = tasks.clone();
        async move { tasks.close(None).await }
    });
    settle().await;
    drop(go);
    parent.await.unwrap();
    assert_eq!(closing.await.unwrap().outcomes.completed, 3);
    assert_eq!(owner.await.unwrap().unwrap_err(), SpawnError::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_waits_for_a_place_does_not_keep_those_behind_it_from_being_refused() {
    let tasks = at_most(2);
    endless(&tasks, "stuck");
    let parent = |task: TaskContext| async move { task.manager().create_task(async {}).spawn_wait().await.map(drop) };
    let parent = tasks.create_task_with_context(parent).name("parent").spawn().unwrap();
    settle().await;
    let mut owner = Box::pin(tasks.create_task(async {}).spawn_wait());
    assert!(owner.as_mut().now_or_never().is_none());
    let closing = tasks.close(Some(SECOND));
    futures::pin_mut!(closing);
    assert!(closing.as_mut().now_or_never().is_none());
    assert_eq!(owner.now_or_never().unwrap().unwrap_err(), SpawnError::Closed);
    // The child is refused when the bound is over.
    closing.await;
    assert_eq!(parent.await.unwrap_err().outcome(), TaskOutcome::Failed);
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_is_dropped_refuses_those_who_wait_for_a_place() {
    let tasks = at_most(1);
    let (send, receive) = oneshot::channel();
    let holder = |task: TaskContext| async move {
        // Past the task's own end.
        send.send(task.manager().clone()).unwrap();
        pending::<()>().await;
    };
    tasks.create_task_with_context(holder).spawn().unwrap();
    let within = receive.await.unwrap();
    let waiting = within.create_task(async {}).spawn_wait();
    futures::pin_mut!(waiting);
    assert!(waiting.as_mut().now_or_never().is_none());
    drop(tasks);
    assert_eq!(waiting.now_or_never().unwrap().unwrap_err(), SpawnError::Closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_many_spawners_there_are_never_more_than_the_limit_and_all_get_in() {
    let tasks = at_most(3);
    let there = Arc::new(AtomicUsize::new(0));
    let spawners: Vec<_> = (0..4)
        .map(|_| {
            let (tasks, there) = (tasks.clone(), Arc::clone(&there));
            tokio::spawn(async move {
                for _ in 0..250 {
                    let there = Arc::clone(&there);
                    let work = async move {
                        assert!(there.fetch_add(1, Ordering::SeqCst) < 3);
                        let _gone = OnDrop(|| assert!(there.fetch_sub(1, Ordering::SeqCst) <= 3));
                        tokio::task::yield_now().await;
                    };
                    tasks.create_task(work).spawn_wait().await.unwrap();
                    assert!(tasks.task_count() <= 3);
                }
            })
        })
        .collect();
    for spawner in spawners {
        spawner.await.unwrap();
    }
    tasks.wait_for_all(None).await.unwrap();
    let stats = tasks.stats();
    assert_eq!((stats.outcomes.completed, stats.rejected), (1_000, 0), "{stats}");
}

// ---- Places: dropping the oldest.

#[tokio::test(start_paused = true)]
async fn the_oldest_task_is_dropped_to_make_room_and_everybody_is_told() {
    let (log, _guard) = capture();
    let tasks = with_options(dropping_the_oldest(2));
    let first = tasks.create_task(pending::<()>()).name("first").context("user", "ada").spawn().unwrap();
    let second = endless(&tasks, "second");
    sleep(SECOND).await;
    endless(&tasks, "third");
    let error = first.await.unwrap_err();
    assert!(matches!(error, TaskError::Evicted), "{error:?}");
    assert_eq!(error.to_string(), "the background task was dropped to make room for another one");
    assert!(!second.is_finished());
    assert_eq!(names(&tasks), ["second", "third"]);
    let stats = tasks.stats();
    assert_eq!((stats.spawned, stats.active, stats.outcomes.evicted, stats.rejected), (3, 2, 1, 0));
    assert_adds_up(&stats);
    let end = &tasks.recently_finished()[0];
    assert_eq!(end.to_string(), "first #1 (evicted after 1.0s) {\"user\":\"ada\"}");
    let lines = log.ends();
    assert_eq!(lines.len(), 1);
    assert_eq!((lines[0].level, lines[0].field("name"), lines[0].field("outcome")), (Level::WARN, "first", "evicted"));
}

#[tokio::test(start_paused = true)]
async fn the_one_that_waited_longest_for_its_turn_is_dropped_before_one_that_runs() {
    let journal = Journal::default();
    let tasks = with_options(dropping_the_oldest(3).max_running(1));
    let spawn = |name: &'static str| {
        let begun = journal.clone();
        let work = async move {
            begun.add(name);
            pending::<()>().await;
        };
        tasks.create_task(work).name(name).spawn().unwrap()
    };
    let [_runs, longest, _later] = ["runs", "longest", "later"].map(spawn);
    settle().await;
    spawn("new");
    assert!(matches!(longest.await, Err(TaskError::Evicted)));
    assert_eq!(names(&tasks), ["runs", "later", "new"]);
    assert_eq!(tasks.recently_finished()[0].attempts(), 0);
    assert_eq!((tasks.stats().active, tasks.stats().queued), (3, 2));
    assert_eq!(journal.entries(), ["runs"]);
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_spawns_keeps_the_newest() {
    let tasks = with_options(dropping_the_oldest(2));
    // None of them has been polled when the next comes.
    let handles: Vec<_> = ["a", "b", "c", "d", "e"].iter().map(|name| endless(&tasks, name)).collect();
    settle().await;
    assert_eq!(names(&tasks), ["d", "e"]);
    for handle in handles.into_iter().take(3) {
        assert!(matches!(handle.await, Err(TaskError::Evicted)));
    }
    assert_eq!(tasks.stats().outcomes.evicted, 3);
}

#[tokio::test(start_paused = true)]
async fn tasks_that_must_finish_and_blocking_ones_are_never_dropped_for_another() {
    let tasks = with_options(dropping_the_oldest(3));
    let (go, wait) = mpsc::channel::<()>();
    let must = tasks.create_task(pending::<()>()).name("must").cancel_last().spawn().unwrap();
    let blocks = tasks.create_blocking_task(move |_| wait.recv().unwrap()).name("blocks").spawn().unwrap();
    let plain = endless(&tasks, "plain");
    settle().await;
    let other = tasks.create_task(pending::<()>()).name("other must").cancel_last().spawn().unwrap();
    assert!(matches!(plain.await, Err(TaskError::Evicted)));
    // None is left that may be dropped: the new one is refused, and nobody is harmed.
    assert_eq!(tasks.create_task(async {}).spawn().unwrap_err(), SpawnError::Full);
    settle().await;
    assert_eq!(names(&tasks), ["must", "blocks", "other must"]);

    let waiting = tasks.create_task(async { Ok::<_, Infallible>(7) }).spawn_wait();
    futures::pin_mut!(waiting);
    assert!(waiting.as_mut().now_or_never().is_none());
    go.send(()).unwrap();
    blocks.await.unwrap();
    assert_eq!(waiting.await.unwrap().await.unwrap(), 7);
    drop((must, other));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_dropped_task_frees_no_second_place() {
    let tasks = with_options(dropping_the_oldest(1));
    let plain = endless(&tasks, "plain");
    tasks.create_task(pending::<()>()).name("must").cancel_last().spawn().unwrap();
    let waiting = tasks.create_task(async {}).spawn_wait();
    futures::pin_mut!(waiting);
    assert!(waiting.as_mut().now_or_never().is_none());
    plain.await.unwrap_err();
    assert!(waiting.as_mut().now_or_never().is_none());
    assert_eq!(tasks.create_task(async {}).spawn().unwrap_err(), SpawnError::Full);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_done_in_the_moment_in_which_it_is_dropped_is_done_and_its_place_counted_once() {
    let tasks = with_options(dropping_the_oldest(1));
    let manager = tasks.clone();
    let work = async move {
        // On a thread of its own, so that it isn't the task that spawns: that one would be spared.
        let spawn = move || manager.create_task(pending::<()>()).name("next").spawn().is_ok();
        assert!(std::thread::spawn(spawn).join().unwrap());
        Ok::<_, Infallible>("done")
    };
    assert_eq!(tasks.create_task(work).spawn().unwrap().await.unwrap(), "done");
    assert_eq!((tasks.stats().outcomes.completed, tasks.stats().outcomes.evicted), (1, 0));
    // The limit still is what it was.
    let must = || tasks.create_task(pending::<()>()).cancel_last().spawn();
    must().unwrap();
    assert_eq!(must().unwrap_err(), SpawnError::Full);
    settle().await;
    assert_eq!((tasks.stats().outcomes.evicted, tasks.task_count()), (1, 1));
    assert_eq!(must().unwrap_err(), SpawnError::Full);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_listens_is_told_that_it_is_dropped_but_has_no_grace() {
    let tasks = with_options(dropping_the_oldest(1).grace_period(60 * SECOND));
    let (send, receive) = oneshot::channel();
    let work = |task: TaskContext| async move {
        send.send(task.token().clone()).unwrap();
        pending::<()>().await;
    };
    let handle = tasks.create_task_with_context(work).spawn().unwrap();
    let token = receive.await.unwrap();
    let began = Instant::now();
    endless(&tasks, "next");
    assert!(token.is_cancelled());
    assert!(matches!(handle.await, Err(TaskError::Evicted)));
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_was_cancelled_before_it_is_dropped_gives_its_place_away_all_the_same() {
    let tasks = with_options(dropping_the_oldest(1).grace_period(60 * SECOND));
    let handle = tasks.create_task_with_context(|_| pending::<()>()).spawn().unwrap();
    handle.cancel();
    settle().await;
    endless(&tasks, "next");
    assert!(matches!(handle.await, Err(TaskError::Evicted)));
    assert_eq!(names(&tasks), ["next"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_blocks_its_thread_has_given_its_place_away_though_it_still_runs() {
    let tasks = with_options(dropping_the_oldest(1));
    let (go, wait) = mpsc::channel::<()>();
    let (begun, has_begun) = oneshot::channel();
    let work = async move {
        begun.send(()).unwrap();
        wait.recv().unwrap();
    };
    let hog = tasks.create_task(work).name("hog").spawn().unwrap();
    has_begun.await.unwrap();
    endless(&tasks, "second");
    assert_eq!(live(&tasks)[0], ("hog".to_owned(), TaskState::Cancelling));
    // Its place is taken, once: the next one takes that of the second.
    endless(&tasks, "third");
    go.send(()).unwrap();
    hog.await.unwrap();
    while tasks.task_count() > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(names(&tasks), ["third"]);
    assert_eq!((tasks.stats().outcomes.completed, tasks.stats().outcomes.evicted), (1, 1), "it never awaited again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_wait_for_a_place_get_one_though_a_dropped_task_still_runs() {
    let tasks = with_options(dropping_the_oldest(1));
    let (go, wait) = mpsc::channel::<()>();
    let (begun, has_begun) = oneshot::channel();
    let work = async move {
        begun.send(()).unwrap();
        wait.recv().unwrap();
    };
    tasks.create_task(work).name("hog").spawn().unwrap();
    has_begun.await.unwrap();
    let must = tasks.create_task(pending::<()>()).name("must").cancel_last().spawn().unwrap();
    let mut waiting = Box::pin(tasks.create_task(async {}).spawn_wait());
    assert!(waiting.as_mut().now_or_never().is_none());
    must.cancel();
    // The hog is still there when this one gets in.
    waiting.await.unwrap();
    assert!(names(&tasks).contains(&"hog".to_owned()));
    go.send(()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_dropped_for_others_leave_the_limit_as_it_was() {
    let tasks = with_options(dropping_the_oldest(4).max_running(2));
    let spawners: Vec<_> = (0..2)
        .map(|_| {
            let tasks = tasks.clone();
            tokio::spawn(async move {
                for _ in 0..500 {
                    tasks.create_task(tokio::task::yield_now()).spawn().unwrap();
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for spawner in spawners {
        spawner.await.unwrap();
    }
    tasks.wait_for_all(None).await.unwrap();
    let stats = tasks.stats();
    assert_eq!(
        (stats.outcomes.completed + stats.outcomes.evicted, stats.queued, stats.active),
        (1_000, 0, 0),
        "{stats}"
    );
    for _ in 0..4 {
        tasks.create_task(pending::<()>()).cancel_last().spawn().unwrap();
    }
    assert_eq!(tasks.create_task(async {}).spawn().unwrap_err(), SpawnError::Full);
    assert_eq!(tasks.stats().queued, 2);
}

// ---- Turns: `max_running`.

#[tokio::test(start_paused = true)]
async fn tasks_beyond_the_limit_wait_for_their_turn_and_run_in_the_order_of_their_spawns() {
    let journal = Journal::default();
    let tasks = with_options(TaskManagerOptions::new().max_running(2));
    for number in 1..=5_u32 {
        let journal = journal.clone();
        let work = async move {
            journal.add(format!("{number} begins"));
            sleep(number * SECOND).await;
            journal.add(format!("{number} ends"));
        };
        tasks.create_task(work).name(number.to_string()).spawn().unwrap();
    }
    // Seen before any of them was polled, and afterwards.
    for _ in 0..2 {
        let seen: Vec<_> = tasks.task_info().iter().map(TaskInfo::state).collect();
        assert_eq!(seen[..2], [TaskState::Running; 2]);
        assert_eq!(seen[2..], [TaskState::Queued; 3]);
        let stats = tasks.stats();
        assert_eq!((stats.spawned, stats.active, stats.queued), (5, 5, 3));
        assert_eq!(tasks.task_count(), 5);
        settle().await;
    }
    assert_eq!(tasks.task_info()[4].attempt(), 0);
    assert_eq!(tasks.stats().to_string(), "5 spawned: 5 active (3 queued)");
    let began = Instant::now();
    sleep(SECOND / 2).await;
    assert_eq!(tasks.task_info()[4].to_string(), "5 #5 (queued for 500.0ms)");
    tasks.wait_for_all(None).await.unwrap();
    // 1 and 2, then 3 after 1, 4 after 2, 5 after 3.
    assert_eq!(began.elapsed(), 9 * SECOND);
    let order =
        ["1 begins", "2 begins", "1 ends", "3 begins", "2 ends", "4 begins", "3 ends", "5 begins", "4 ends", "5 ends"];
    assert_eq!(journal.entries(), order);
    assert_eq!(tasks.stats().queued, 0);
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_none_at_once_is_one_at_once() {
    let tasks = with_options(TaskManagerOptions::new().max_running(0).max_running_named("none", 0));
    for _ in 0..3 {
        tasks.create_task(a_second()).name("none").spawn().unwrap();
    }
    let began = Instant::now();
    tasks.wait_for_all(None).await.unwrap();
    assert_eq!(began.elapsed(), 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_name_with_a_limit_holds_up_no_other() {
    let journal = Journal::default();
    let options = TaskManagerOptions::new().max_running(3).max_running_named("mail", 5).max_running_named("mail", 1);
    let tasks = with_options(options);
    let spawn = |name: &'static str, number: u32| {
        let journal = journal.clone();
        let work = async move {
            journal.add(format!("{name} {number}"));
            sleep(10 * SECOND).await;
        };
        tasks.create_task(work).name(name).spawn().unwrap();
    };
    spawn("mail", 1);
    spawn("mail", 2);
    spawn("index", 3);
    spawn("index", 4);
    spawn("index", 5);
    settle().await;
    assert_eq!(journal.entries(), ["mail 1", "index 3", "index 4"], "the last limit of a name is its limit");
    assert_eq!(tasks.stats().queued, 2);
    sleep(15 * SECOND).await;
    assert_eq!(journal.entries()[3..], ["mail 2", "index 5"]);
    assert_eq!(tasks.stats().queued, 0);
}

#[tokio::test(start_paused = true)]
async fn a_place_goes_on_to_the_next_however_its_holder_ends() {
    type Ending = (TaskOutcome, fn(&BackgroundTaskManager));
    let endings: [Ending; 8] = [
        (TaskOutcome::Completed, |tasks| drop(tasks.create_task(a_second()).spawn().unwrap())),
        (TaskOutcome::Failed, |tasks| drop(tasks.create_task(async { Err::<(), _>("no") }).spawn().unwrap())),
        (TaskOutcome::Panicked, |tasks| {
            drop(tasks.create_task(async { Option::<()>::default().unwrap() }).spawn().unwrap());
        }),
        (TaskOutcome::TimedOut, |tasks| drop(tasks.create_task(pending::<()>()).timeout(SECOND).spawn().unwrap())),
        (TaskOutcome::Cancelled, |tasks| tasks.create_task(pending::<()>()).spawn().unwrap().cancel()),
        (TaskOutcome::Aborted, |tasks| drop(tasks.create_task(pending::<()>()).spawn().unwrap().abort_on_drop())),
        (TaskOutcome::Evicted, |tasks| {
            tasks.create_task(pending::<()>()).spawn().unwrap();
            // Nothing else may be dropped.
            for _ in 0..2 {
                tasks.create_task(async {}).cancel_last().spawn().unwrap();
            }
        }),
        // It ignores its token for longer than it may.
        (TaskOutcome::Aborted, |tasks| tasks.create_task_with_context(|_| pending::<()>()).spawn().unwrap().cancel()),
    ];
    for (outcome, spawn) in endings {
        let max = if outcome == TaskOutcome::Evicted { 2 } else { 10 };
        let tasks = with_options(dropping_the_oldest(max).max_running(1));
        spawn(&tasks);
        if outcome != TaskOutcome::Evicted {
            for _ in 0..2 {
                tasks.create_task(async {}).spawn().unwrap();
            }
        }
        tasks.wait_for_all(Some(60 * SECOND)).await.unwrap();
        let ends: Vec<_> = tasks.recently_finished().iter().map(FinishedTask::outcome).collect();
        assert_eq!(ends, [outcome, TaskOutcome::Completed, TaskOutcome::Completed]);
        assert_eq!(tasks.stats().queued, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_queued_task_that_ends_leaves_the_line_to_the_others() {
    let tasks = one_at_a_time();
    let (go, work) = until_told();
    tasks.create_task(work).spawn().unwrap();
    let second = endless(&tasks, "second");
    let third = tasks.create_task(async { Ok::<_, Infallible>(3) }).spawn().unwrap();
    settle().await;
    second.cancel();
    second.await.unwrap_err();
    assert_eq!((tasks.stats().active, tasks.stats().queued), (2, 1));
    drop(go);
    assert_eq!(third.await.unwrap(), 3);
}

/// Spawns a task of each kind that writes down if it ever begins.
fn one_of_each_kind(tasks: &BackgroundTaskManager, begun: &Journal) -> Vec<TaskHandle<()>> {
    let (one, two, three, four) = (begun.clone(), begun.clone(), begun.clone(), begun.clone());
    vec![
        tasks.create_task(async move { one.add("plain") }).name("queued").spawn().unwrap(),
        tasks.create_task_with_context(move |_| async move { two.add("with context") }).name("queued").spawn().unwrap(),
        tasks.create_blocking_task(move |_| three.add("blocking")).name("queued").spawn().unwrap(),
        tasks
            .create_retrying_task(move |_| {
                four.add("retrying");
                async {}
            })
            .name("queued")
            .spawn()
            .unwrap(),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_cancelled_while_it_waits_for_its_turn_never_begins() {
    let tasks = one_at_a_time();
    let begun = Journal::default();
    endless(&tasks, "runs");
    for polled_first in [true, false] {
        let queued = one_of_each_kind(&tasks, &begun);
        if polled_first {
            settle().await;
        }
        for handle in &queued {
            handle.cancel();
        }
        for handle in queued {
            assert_eq!(handle.await.unwrap_err().outcome(), TaskOutcome::Cancelled);
        }
    }
    assert!(tasks.recently_finished().iter().all(|end| end.attempts() == 0));
    tasks.cancel_all().await;
    assert_eq!(begun.entries(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_cancelled_in_the_queue_does_not_begin_when_its_turn_comes() {
    for polled_first in [true, false] {
        let tasks = one_at_a_time();
        let begun = Journal::default();
        let runs = endless(&tasks, "runs");
        let queued = one_of_each_kind(&tasks, &begun);
        if polled_first {
            settle().await;
        }
        // Its turn comes before any of the others notices.
        runs.cancel();
        assert_eq!(tasks.cancel_named("queued"), 4);
        for handle in queued {
            assert_eq!(handle.await.unwrap_err().outcome(), TaskOutcome::Cancelled);
        }
        assert_eq!(begun.entries(), [""; 0]);
        assert_eq!((tasks.stats().active, tasks.stats().queued), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_queued_task_is_aborted_without_having_begun() {
    let tasks = one_at_a_time();
    let begun = Journal::default();
    endless(&tasks, "runs");
    for handle in one_of_each_kind(&tasks, &begun) {
        drop(handle.abort_on_drop());
    }
    settle().await;
    assert_eq!((tasks.stats().outcomes.aborted, tasks.stats().queued), (4, 0));
    assert_eq!(begun.entries(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_does_not_come_in_time_is_a_timeout_of_the_queue() {
    let (log, _guard) = capture();
    let tasks = with_options(TaskManagerOptions::new().max_running(1).queue_timeout(5 * SECOND));
    let polled = Arc::new(AtomicBool::new(false));
    endless(&tasks, "runs");
    let began = Instant::now();
    let flag = Arc::clone(&polled);
    let work = async move { flag.store(true, Ordering::SeqCst) };
    let managers = tasks.create_task(work).name("managers").spawn().unwrap();
    let own = endless_for(&tasks, "own", 2 * SECOND);
    let longer = endless_for(&tasks, "longer", 9 * SECOND);
    for (handle, limit) in [(own, 2 * SECOND), (managers, 5 * SECOND), (longer, 9 * SECOND)] {
        let error = handle.await.unwrap_err();
        let TaskError::TimedOut { after, limit: of, .. } = error else { panic!("{error}") };
        assert_eq!((after, of, began.elapsed()), (limit, TimeoutKind::Queue, limit));
        assert_eq!(
            error.to_string(),
            format!("the background task timed out: it was queued for longer than {limit:?}")
        );
    }
    assert!(!polled.load(Ordering::SeqCst));
    for end in tasks.recently_finished() {
        assert_eq!((end.outcome(), end.limit(), end.attempts()), (TaskOutcome::TimedOut, Some(TimeoutKind::Queue), 0));
    }
    assert_eq!((tasks.stats().outcomes.timed_out, tasks.stats().active), (3, 1), "who runs has no such limit");
    let lines = log.events("background task timed out in the queue");
    assert_eq!(lines.len(), 3);
    assert_eq!((lines[0].level, lines[0].field("limit"), lines[0].field("name")), (Level::WARN, "queue", "own"));
}

fn endless_for(tasks: &BackgroundTaskManager, name: &'static str, queue: Duration) -> TaskHandle<()> {
    tasks.create_task(pending::<()>()).name(name).queue_timeout(queue).spawn().unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_time_in_the_queue_is_counted_from_the_spawn() {
    let tasks = one_at_a_time();
    endless(&tasks, "runs");
    let began = Instant::now();
    let handle = endless_for(&tasks, "queued", 3 * SECOND);
    // It is first polled two seconds later.
    assert!(advance(2 * SECOND).now_or_never().is_none());
    handle.await.unwrap_err();
    assert_eq!(began.elapsed(), 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn once_its_turn_has_come_a_task_does_not_time_out_in_the_queue() {
    let tasks = one_at_a_time();
    tasks.create_task(a_second()).spawn().unwrap();
    let queued = tasks.create_task(async { sleep(10 * SECOND).await }).queue_timeout(2 * SECOND).spawn().unwrap();
    queued.await.unwrap();
    // At the very moment, the turn wins.
    tasks.create_task(a_second()).spawn().unwrap();
    let queued = tasks.create_task(async { sleep(10 * SECOND).await }).queue_timeout(SECOND).spawn().unwrap();
    queued.await.unwrap();
    // Without a queue there is no time in it.
    tasks.create_task(a_second()).queue_timeout(Duration::ZERO).spawn().unwrap().await.unwrap();
    endless(&tasks, "runs");
    let impatient = endless_for(&tasks, "impatient", Duration::ZERO);
    assert_eq!(impatient.await.unwrap_err().outcome(), TaskOutcome::TimedOut);
    let patient = endless_for(&tasks, "patient", Duration::MAX);
    sleep(100 * SECOND).await;
    assert!(!patient.is_finished());
}

#[tokio::test(start_paused = true)]
async fn the_whole_timeout_runs_in_the_queue_as_well() {
    let tasks = one_at_a_time();
    tasks.create_task(sleep(2 * SECOND)).spawn().unwrap();
    let began = Instant::now();
    let in_queue = tasks.create_task(pending::<()>()).timeout(SECOND).queue_timeout(9 * SECOND).spawn().unwrap();
    let after_it = tasks.create_task(pending::<()>()).timeout(5 * SECOND).spawn().unwrap();
    let at_once = tasks.create_task(pending::<()>()).timeout(Duration::ZERO).spawn().unwrap();
    for (handle, after) in [(at_once, Duration::ZERO), (in_queue, SECOND), (after_it, 5 * SECOND)] {
        let error = handle.await.unwrap_err();
        assert!(matches!(error, TaskError::TimedOut { limit: TimeoutKind::Total, .. }), "{error:?}");
        assert_eq!(began.elapsed(), after);
    }
    let attempts: Vec<_> = tasks.recently_finished().iter().map(FinishedTask::attempts).collect();
    assert_eq!(attempts, [0, 0, 1, 1], "two never began, and one did for three seconds");
}

#[tokio::test]
async fn a_blocking_task_waits_for_its_turn_without_a_thread() {
    let tasks = one_at_a_time();
    let journal = Journal::default();
    let (go, wait) = mpsc::channel::<()>();
    let (begun, has_begun) = oneshot::channel();
    let first = tasks.create_blocking_task(move |_| {
        begun.send(()).unwrap();
        wait.recv().unwrap();
    });
    let first = first.spawn().unwrap();
    has_begun.await.unwrap();
    let second = {
        let journal = journal.clone();
        tasks.create_blocking_task(move |_| journal.add("second")).spawn().unwrap()
    };
    let third = {
        let journal = journal.clone();
        tasks.create_task(async move { journal.add("third") }).spawn().unwrap()
    };
    settle().await;
    assert_eq!(tasks.stats().queued, 2);
    assert_eq!(journal.entries(), [""; 0]);
    // Cancelled, it goes on until it returns, and keeps its place until then.
    first.cancel();
    settle().await;
    assert_eq!(tasks.stats().queued, 2);
    go.send(()).unwrap();
    first.await.unwrap();
    second.await.unwrap();
    third.await.unwrap();
    assert_eq!(journal.entries(), ["second", "third"]);
}

#[tokio::test(start_paused = true)]
async fn the_children_of_a_running_task_wait_for_their_turn_like_others() {
    let journal = Journal::default();
    let tasks = one_at_a_time();
    let (one, two) = (journal.clone(), journal.clone());
    let parent = |task: TaskContext| async move {
        task.manager().create_task(async move { one.add("child") }).spawn().unwrap();
        sleep(SECOND).await;
        two.add("parent ends");
    };
    tasks.create_task_with_context(parent).spawn().unwrap();
    let three = journal.clone();
    tasks.create_task(async move { three.add("before the child") }).spawn().unwrap();
    tasks.wait_for_all(None).await.unwrap();
    assert_eq!(journal.entries(), ["parent ends", "before the child", "child"]);
}

#[tokio::test(start_paused = true)]
async fn a_chain_of_tasks_that_spawn_their_successor_runs_on_under_a_limit() {
    fn link(task: TaskContext, left: u32) -> BoxFuture<'static, Result<(), SpawnError>> {
        Box::pin(async move {
            if left > 0 {
                task.manager().create_task_with_context(move |task| link(task, left - 1)).spawn()?;
            }
            Ok(())
        })
    }
    let tasks = one_at_a_time();
    tasks.create_task_with_context(|task| link(task, 100)).spawn().unwrap();
    tasks.wait_for_all(None).await.unwrap();
    assert_eq!(tasks.stats().outcomes.completed, 101);
}

#[tokio::test(start_paused = true)]
async fn a_close_lets_those_that_wait_have_their_turn() {
    let tasks = one_at_a_time();
    for _ in 0..3 {
        tasks.create_task(a_second()).spawn().unwrap();
    }
    let report = tasks.close(Some(10 * SECOND)).await;
    assert_eq!((report.outcomes.completed, report.elapsed), (3, 3 * SECOND));
    assert!(report.is_clean());
}

#[tokio::test(start_paused = true)]
async fn those_that_still_wait_for_their_turn_at_the_bound_are_cut_off_without_having_begun() {
    let tasks = with_options(TaskManagerOptions::new().max_running(1).grace_period(2 * SECOND));
    let begun = Journal::default();
    tasks.create_task_with_context(|_| pending::<()>()).name("stubborn").spawn().unwrap();
    one_of_each_kind(&tasks, &begun);
    let report = tasks.close(Some(5 * SECOND)).await;
    let unfinished: Vec<_> = report.unfinished.iter().map(ToString::to_string).collect();
    let queued = |id| format!("queued #{id} (cancelled after 5.0s)");
    assert_eq!(unfinished, [queued(2), queued(3), queued(4), queued(5), "stubborn #1 (aborted after 7.0s)".to_owned()]);
    assert_eq!((report.outcomes.cancelled, report.outcomes.aborted, report.elapsed), (4, 1, 7 * SECOND));
    assert_eq!(begun.entries(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn at_the_bound_no_turn_comes_any_more() {
    let tasks = one_at_a_time();
    let begun = Journal::default();
    endless(&tasks, "runs");
    one_of_each_kind(&tasks, &begun);
    // The one that runs is gone at once, which would make it the next one's turn.
    let report = tasks.close(Some(Duration::ZERO)).await;
    assert_eq!((report.outcomes.cancelled, report.unfinished.len()), (5, 5));
    assert_eq!(begun.entries(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn cancel_all_lets_none_of_those_that_wait_begin() {
    let tasks = one_at_a_time();
    let begun = Journal::default();
    endless(&tasks, "runs");
    one_of_each_kind(&tasks, &begun);
    let report = tasks.cancel_all().await;
    assert_eq!((report.ended.len(), report.still_running.len()), (5, 0));
    assert_eq!(begun.entries(), [""; 0]);
    // The queue is as it was.
    tasks.create_task(async {}).spawn().unwrap().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_is_dropped_cancels_those_that_wait_for_their_turn() {
    let tasks = one_at_a_time();
    let begun = Journal::default();
    endless(&tasks, "runs");
    let queued = one_of_each_kind(&tasks, &begun);
    drop(tasks);
    for handle in queued {
        assert_eq!(handle.await.unwrap_err().outcome(), TaskOutcome::Cancelled);
    }
    assert_eq!(begun.entries(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_numbers_agree_at_any_moment() {
    const TASKS: usize = 400;
    let tasks =
        with_options(dropping_the_oldest(24).max_running(4).max_running_named("two", 2).grace_period(Duration::ZERO));
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let done = Arc::new(AtomicBool::new(false));
    // A thread of its own, so that it looks in the middle of things.
    let sampler = std::thread::spawn({
        let (tasks, done) = (tasks.clone(), Arc::clone(&done));
        move || {
            while !done.load(Ordering::SeqCst) {
                assert_adds_up(&tasks.stats());
                std::thread::yield_now();
            }
        }
    });
    let spawner = |seed: usize| {
        let (tasks, running, most) = (tasks.clone(), Arc::clone(&running), Arc::clone(&most));
        tokio::spawn(async move {
            for number in 0..TASKS {
                let (running, most) = (Arc::clone(&running), Arc::clone(&most));
                let work = async move {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    let _gone = OnDrop(|| {
                        running.fetch_sub(1, Ordering::SeqCst);
                    });
                    tokio::task::yield_now().await;
                    match (number + seed) % 5 {
                        0 => Err("failed"),
                        1 => pending().await,
                        _ => Ok(()),
                    }
                };
                let builder = tasks.create_task(work).name(if number % 2 == 0 { "two" } else { "any" });
                let handle = builder.spawn().unwrap();
                if (number + seed) % 5 == 1 {
                    handle.cancel();
                }
                if number % 7 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        })
    };
    for spawner in [spawner(0), spawner(1)] {
        spawner.await.unwrap();
    }
    tasks.wait_for_all(None).await.unwrap();
    done.store(true, Ordering::SeqCst);
    sampler.join().unwrap();
    let stats = tasks.stats();
    assert_adds_up(&stats);
    assert_eq!((stats.spawned, stats.active, stats.queued, stats.rejected), (2 * TASKS as u64, 0, 0, 0));
    assert!(most.load(Ordering::SeqCst) <= 4, "{most:?} at once");
}

//! Capacity: limits on the tasks in flight and on the running ones, and the tasks beyond these limits.

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

/// Creates a manager with at most this many tasks in flight.
fn at_most(tasks: usize) -> BackgroundTaskManager {
    with_options(TaskManagerOptions::new().max_tasks(tasks))
}

fn dropping_the_oldest(tasks: usize) -> TaskManagerOptions {
    TaskManagerOptions::new().max_tasks(tasks).on_full(OnFull::DropOldest)
}

fn one_at_a_time() -> BackgroundTaskManager {
    with_options(TaskManagerOptions::new().max_running(1))
}

/// Takes a second from its first poll, where a bare `sleep` counts from its creation.
async fn a_second() {
    sleep(SECOND).await;
}

/// Spawns a task that runs until it is stopped.
fn endless(tasks: &BackgroundTaskManager, name: &'static str) -> TaskHandle<()> {
    tasks.create_task(pending::<()>()).name(name).spawn().unwrap()
}

/// Returns a future that runs until the sender is used or dropped.
fn until_released() -> (oneshot::Sender<()>, impl Future<Output = ()> + Send + 'static) {
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
async fn a_spawn_beyond_the_limit_is_refused_counted_logged_and_never_polled() {
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
    assert_eq!(lines[0].field("reason"), "full");

    // The other tasks continue, and the slot of an ended one is free again.
    settle().await;
    assert_eq!(names(&tasks), ["first", "second"]);
    first.cancel();
    first.await.unwrap_err();
    endless(&tasks, "fourth");
    assert_eq!(names(&tasks), ["second", "fourth"]);
}

#[tokio::test(start_paused = true)]
async fn queued_tasks_count_towards_max_tasks() {
    let tasks = with_options(TaskManagerOptions::new().max_tasks(3).max_running(1));
    for _ in 0..3 {
        endless(&tasks, "task");
    }
    assert_eq!(tasks.create_task(async {}).spawn().unwrap_err(), SpawnError::Full);
    assert_eq!((tasks.stats().active, tasks.stats().queued), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_zero_tasks_means_one() {
    let tasks = at_most(0);
    endless(&tasks, "one");
    assert_eq!(tasks.create_task(async {}).spawn().unwrap_err(), SpawnError::Full);
}

#[tokio::test(start_paused = true)]
async fn a_task_is_not_dropped_for_its_own_descendants() {
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
async fn the_number_of_tasks_being_dropped_is_bounded() {
    let tasks = with_options(dropping_the_oldest(10));
    let spawned = (0..5_000).filter(|_| tasks.create_task(pending::<()>()).spawn().is_ok()).count();
    // The tasks were not polled yet, so none of them has been dropped.
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
async fn spawn_wait_spawns_when_a_slot_gets_free() {
    let tasks = at_most(1);
    let (go, work) = until_released();
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
    let (go, work) = until_released();
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
    // The slot is free again.
    tasks.create_task(async {}).spawn().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dropped_spawn_wait_passes_its_slot_on() {
    let tasks = at_most(1);
    let (go, work) = until_released();
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
async fn waiting_spawns_get_slots_in_order() {
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
async fn a_spawn_that_takes_a_slot_does_not_reorder_waiting_spawns() {
    let tasks = at_most(1);
    let (go, work) = until_released();
    tasks.create_task(work).spawn().unwrap();
    let mut first = Box::pin(tasks.create_task(pending::<()>()).name("first").spawn_wait());
    let mut second = Box::pin(tasks.create_task(pending::<()>()).name("second").spawn_wait());
    assert!(first.as_mut().now_or_never().is_none());
    assert!(second.as_mut().now_or_never().is_none());
    drop(go);
    tasks.wait_for_all(None).await.unwrap();
    // A spawn takes the slot before the first waiting spawn is polled.
    let barged = endless(&tasks, "barged");
    assert!(first.as_mut().now_or_never().is_none());
    barged.cancel();
    barged.await.unwrap_err();
    assert!(second.as_mut().now_or_never().is_none(), "it is not its turn");
    assert_eq!(first.await.unwrap().name(), "first");
}

#[tokio::test(start_paused = true)]
async fn a_new_spawn_wait_does_not_overtake_earlier_ones() {
    let tasks = at_most(1);
    let (go, work) = until_released();
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
async fn a_refused_spawn_wait_passes_its_slot_on() {
    let tasks = at_most(2);
    let (go_one, one) = until_released();
    let (go_two, two) = until_released();
    let one = tasks.create_task(one).spawn().unwrap();
    let two = tasks.create_task(two).spawn().unwrap();
    let singleton = || tasks.create_task(pending::<()>()).key_in("shared", "k", OnDuplicateKey::Skip).spawn_wait();
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
async fn a_close_refuses_waiting_spawns() {
    let tasks = at_most(1);
    endless(&tasks, "stuck");
    let mut waiters: Vec<_> = (0..3).map(|_| Box::pin(tasks.create_task(async {}).spawn_wait())).collect();
    for waiting in &mut waiters {
        assert!(waiting.as_mut().now_or_never().is_none());
    }
    let closing = tasks.close(None);
    futures::pin_mut!(closing);
    assert!(closing.as_mut().now_or_never().is_none());
    // These spawns do not come from live tasks: a draining manager refuses them although a slot may get free.
    for waiting in futures::future::join_all(waiters).await {
        assert_eq!(waiting.unwrap_err(), SpawnError::Closed);
    }
    assert_eq!(tasks.stats().rejected, 3);
}

#[tokio::test(start_paused = true)]
async fn while_draining_a_slot_goes_to_the_waiting_child() {
    let tasks = at_most(2);
    let (go, work) = until_released();
    tasks.create_task(work).name("first").spawn().unwrap();
    let parent = |task: TaskContext| async move {
        // The child waits behind a spawn that the draining manager refuses.
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
async fn a_waiting_child_does_not_delay_the_refusal_of_later_spawns() {
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
    // The child is refused at the bound.
    closing.await;
    assert_eq!(parent.await.unwrap_err().outcome(), TaskOutcome::Failed);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_manager_refuses_waiting_spawns() {
    let tasks = at_most(1);
    let (send, receive) = oneshot::channel();
    let holder = |task: TaskContext| async move {
        // The manager outlives the task that sent it.
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
async fn many_waiting_spawners_never_exceed_the_limit_and_are_all_admitted() {
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
async fn drop_oldest_drops_the_oldest_task_and_reports_it() {
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
async fn drop_oldest_prefers_the_longest_queued_task_to_running_ones() {
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
    // Each task is spawned before the previous one was polled.
    let handles: Vec<_> = ["a", "b", "c", "d", "e"].iter().map(|name| endless(&tasks, name)).collect();
    settle().await;
    assert_eq!(names(&tasks), ["d", "e"]);
    for handle in handles.into_iter().take(3) {
        assert!(matches!(handle.await, Err(TaskError::Evicted)));
    }
    assert_eq!(tasks.stats().outcomes.evicted, 3);
}

#[tokio::test(start_paused = true)]
async fn cancel_last_and_blocking_tasks_are_never_dropped_for_another() {
    let tasks = with_options(dropping_the_oldest(3));
    let (go, wait) = mpsc::channel::<()>();
    let must = tasks.create_task(pending::<()>()).name("must").cancel_last().spawn().unwrap();
    let blocks = tasks.create_blocking_task(move |_| wait.recv().unwrap()).name("blocks").spawn().unwrap();
    let plain = endless(&tasks, "plain");
    settle().await;
    let other = tasks.create_task(pending::<()>()).name("other must").cancel_last().spawn().unwrap();
    assert!(matches!(plain.await, Err(TaskError::Evicted)));
    // No task is left that may be dropped: the new one is refused, and the others stay.
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
async fn the_end_of_a_dropped_task_frees_no_second_slot() {
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
async fn a_task_that_completes_while_it_is_dropped_frees_one_slot() {
    let tasks = with_options(dropping_the_oldest(1));
    let manager = tasks.clone();
    let work = async move {
        // Another thread spawns, because a task that spawns is never dropped for its own child.
        let spawn = move || manager.create_task(pending::<()>()).name("next").spawn().is_ok();
        assert!(std::thread::spawn(spawn).join().unwrap());
        Ok::<_, Infallible>("done")
    };
    assert_eq!(tasks.create_task(work).spawn().unwrap().await.unwrap(), "done");
    assert_eq!((tasks.stats().outcomes.completed, tasks.stats().outcomes.evicted), (1, 0));
    // The limit is unchanged.
    let must = || tasks.create_task(pending::<()>()).cancel_last().spawn();
    must().unwrap();
    assert_eq!(must().unwrap_err(), SpawnError::Full);
    settle().await;
    assert_eq!((tasks.stats().outcomes.evicted, tasks.task_count()), (1, 1));
    assert_eq!(must().unwrap_err(), SpawnError::Full);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_task_with_a_token_is_cancelled_without_a_grace_period() {
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
async fn a_cancelled_task_that_is_dropped_frees_its_slot() {
    let tasks = with_options(dropping_the_oldest(1).grace_period(60 * SECOND));
    let handle = tasks.create_task_with_context(|_| pending::<()>()).spawn().unwrap();
    handle.cancel();
    settle().await;
    endless(&tasks, "next");
    assert!(matches!(handle.await, Err(TaskError::Evicted)));
    assert_eq!(names(&tasks), ["next"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_task_that_blocks_its_thread_has_freed_its_slot() {
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
    // The slot was handed over once: the next task takes that of the second.
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
async fn waiting_spawns_get_slots_while_a_dropped_task_still_runs() {
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
    // The hog still runs when this task is admitted.
    waiting.await.unwrap();
    assert!(names(&tasks).contains(&"hog".to_owned()));
    go.send(()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_many_tasks_does_not_change_the_limit() {
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
async fn tasks_beyond_the_running_limit_queue_and_start_in_spawn_order() {
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
    // The states are the same before the first poll and afterwards.
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
    // Tasks 1 and 2 start at once, then 3 after 1, 4 after 2, and 5 after 3.
    assert_eq!(began.elapsed(), 9 * SECOND);
    let order =
        ["1 begins", "2 begins", "1 ends", "3 begins", "2 ends", "4 begins", "3 ends", "5 begins", "4 ends", "5 ends"];
    assert_eq!(journal.entries(), order);
    assert_eq!(tasks.stats().queued, 0);
}

#[tokio::test(start_paused = true)]
async fn a_running_limit_of_zero_means_one() {
    let tasks = with_options(TaskManagerOptions::new().max_running(0).max_running_named("none", 0));
    for _ in 0..3 {
        tasks.create_task(a_second()).name("none").spawn().unwrap();
    }
    let began = Instant::now();
    tasks.wait_for_all(None).await.unwrap();
    assert_eq!(began.elapsed(), 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_a_name_does_not_affect_other_names() {
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
async fn a_slot_passes_to_the_next_task_however_its_owner_ends() {
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
            // No other task may be dropped.
            for _ in 0..2 {
                tasks.create_task(async {}).cancel_last().spawn().unwrap();
            }
        }),
        // The task ignores its token beyond its grace period.
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
async fn a_queued_task_that_ends_leaves_the_queue() {
    let tasks = one_at_a_time();
    let (go, work) = until_released();
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

/// Spawns a task of each kind that writes its name down if it ever starts.
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
async fn a_task_cancelled_in_the_queue_never_starts() {
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
async fn a_task_cancelled_in_the_queue_does_not_start_when_a_slot_gets_free() {
    for polled_first in [true, false] {
        let tasks = one_at_a_time();
        let begun = Journal::default();
        let runs = endless(&tasks, "runs");
        let queued = one_of_each_kind(&tasks, &begun);
        if polled_first {
            settle().await;
        }
        // The task may run before any of the others is polled.
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
async fn a_queued_task_is_aborted_without_having_started() {
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
async fn a_task_queued_for_too_long_ends_by_its_queue_timeout() {
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
async fn the_queue_timeout_starts_at_spawn() {
    let tasks = one_at_a_time();
    endless(&tasks, "runs");
    let began = Instant::now();
    let handle = endless_for(&tasks, "queued", 3 * SECOND);
    // The task is first polled two seconds later.
    assert!(advance(2 * SECOND).now_or_never().is_none());
    handle.await.unwrap_err();
    assert_eq!(began.elapsed(), 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_started_task_has_no_queue_timeout() {
    let tasks = one_at_a_time();
    tasks.create_task(a_second()).spawn().unwrap();
    let queued = tasks.create_task(async { sleep(10 * SECOND).await }).queue_timeout(2 * SECOND).spawn().unwrap();
    queued.await.unwrap();
    // A slot that gets free at the very moment of the timeout wins.
    tasks.create_task(a_second()).spawn().unwrap();
    let queued = tasks.create_task(async { sleep(10 * SECOND).await }).queue_timeout(SECOND).spawn().unwrap();
    queued.await.unwrap();
    // A task that is never queued has no time in the queue.
    tasks.create_task(a_second()).queue_timeout(Duration::ZERO).spawn().unwrap().await.unwrap();
    endless(&tasks, "runs");
    let impatient = endless_for(&tasks, "impatient", Duration::ZERO);
    assert_eq!(impatient.await.unwrap_err().outcome(), TaskOutcome::TimedOut);
    let patient = endless_for(&tasks, "patient", Duration::MAX);
    sleep(100 * SECOND).await;
    assert!(!patient.is_finished());
}

#[tokio::test(start_paused = true)]
async fn the_timeout_includes_the_time_in_the_queue() {
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
async fn a_queued_blocking_task_occupies_no_thread() {
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
    // A cancelled blocking task runs until it returns, and keeps its slot until then.
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
async fn the_children_of_a_running_task_queue_like_others() {
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
async fn a_chain_of_tasks_continues_under_a_limit() {
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
async fn a_close_lets_queued_tasks_run() {
    let tasks = one_at_a_time();
    for _ in 0..3 {
        tasks.create_task(a_second()).spawn().unwrap();
    }
    let report = tasks.close(Some(10 * SECOND)).await;
    assert_eq!((report.outcomes.completed, report.elapsed), (3, 3 * SECOND));
    assert!(report.is_clean());
}

#[tokio::test(start_paused = true)]
async fn tasks_still_queued_at_the_bound_are_cancelled_without_having_started() {
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
async fn no_task_starts_after_the_bound() {
    let tasks = one_at_a_time();
    let begun = Journal::default();
    endless(&tasks, "runs");
    one_of_each_kind(&tasks, &begun);
    // The running task is dropped at once, which would let the next one start.
    let report = tasks.close(Some(Duration::ZERO)).await;
    assert_eq!((report.outcomes.cancelled, report.unfinished.len()), (5, 5));
    assert_eq!(begun.entries(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn cancel_all_starts_no_queued_task() {
    let tasks = one_at_a_time();
    let begun = Journal::default();
    endless(&tasks, "runs");
    one_of_each_kind(&tasks, &begun);
    let report = tasks.cancel_all().await;
    assert_eq!((report.ended.len(), report.still_running.len()), (5, 0));
    assert_eq!(begun.entries(), [""; 0]);
    // The queue works as before.
    tasks.create_task(async {}).spawn().unwrap().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dropped_manager_cancels_queued_tasks() {
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
async fn the_numbers_are_consistent_at_any_moment() {
    const TASKS: usize = 400;
    let tasks =
        with_options(dropping_the_oldest(24).max_running(4).max_running_named("two", 2).grace_period(Duration::ZERO));
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let done = Arc::new(AtomicBool::new(false));
    // Another thread samples the numbers while they change.
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

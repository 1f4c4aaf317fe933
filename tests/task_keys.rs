//! Tasks with a key: no two with the same key run at once.

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
        OnDuplicateKey, OnFull, SpawnError, TaskError, TaskHandle, TaskManagerOptions, TaskOutcome, TaskState,
        TimeoutKind,
    },
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};
use tracing::Level;

use crate::support::{Journal, OnDrop, capture, settle};

const SECOND: Duration = Duration::from_secs(1);

/// Spawns a task that takes a second, and writes its start and its end down.
fn spawn(
    tasks: &BackgroundTaskManager,
    journal: &Journal,
    name: &'static str,
    when_busy: OnDuplicateKey,
) -> TaskHandle<()> {
    let journal = journal.clone();
    let work = async move {
        journal.add(format!("{name} begins"));
        sleep(SECOND).await;
        journal.add(format!("{name} ends"));
    };
    tasks.create_task(work).name(name).key_in("shared", "k", when_busy).spawn().unwrap()
}

// ---- Queue.

#[tokio::test(start_paused = true)]
async fn tasks_of_one_key_run_sequentially_in_spawn_order() {
    let (tasks, journal) = (BackgroundTaskManager::new(), Journal::default());
    for name in ["a", "b", "c"] {
        spawn(&tasks, &journal, name, OnDuplicateKey::Queue);
    }
    settle().await;
    let states: Vec<_> = tasks.task_info().iter().map(|task| (task.key().unwrap().to_owned(), task.state())).collect();
    let queued = ("k".to_owned(), TaskState::Queued);
    assert_eq!(states, [("k".to_owned(), TaskState::Running), queued.clone(), queued]);
    assert_eq!((tasks.stats().active, tasks.stats().queued), (3, 2));
    let began = Instant::now();
    tasks.wait_for_all(None).await.unwrap();
    assert_eq!(began.elapsed(), 3 * SECOND);
    assert_eq!(journal.entries(), ["a begins", "a ends", "b begins", "b ends", "c begins", "c ends"]);
}

#[tokio::test(start_paused = true)]
async fn tasks_with_other_keys_or_none_are_not_delayed() {
    let tasks = BackgroundTaskManager::new();
    let began = Instant::now();
    for key in ["a", "a", "b", "b"] {
        tasks.create_task(async { sleep(SECOND).await }).key_in("shared", key, OnDuplicateKey::Queue).spawn().unwrap();
    }
    tasks.create_task(async {}).spawn().unwrap().await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(tasks.stats().queued, 2);
    tasks.wait_for_all(None).await.unwrap();
    assert_eq!(began.elapsed(), 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_leaves_the_queue_of_its_key_lets_the_others_advance() {
    let (tasks, journal) = (BackgroundTaskManager::new(), Journal::default());
    spawn(&tasks, &journal, "a", OnDuplicateKey::Queue);
    spawn(&tasks, &journal, "b", OnDuplicateKey::Queue).cancel();
    let late = tasks
        .create_task(pending::<()>())
        .key_in("shared", "k", OnDuplicateKey::Queue)
        .queue_timeout(SECOND / 2)
        .spawn()
        .unwrap();
    spawn(&tasks, &journal, "c", OnDuplicateKey::Queue);
    let error = late.await.unwrap_err();
    assert!(matches!(error, TaskError::TimedOut { limit: TimeoutKind::Queue, .. }), "{error:?}");
    tasks.wait_for_all(None).await.unwrap();
    assert_eq!(journal.entries(), ["a begins", "a ends", "c begins", "c ends"]);
}

#[tokio::test(start_paused = true)]
async fn the_next_task_of_a_key_starts_however_the_previous_one_ends() {
    let tasks = BackgroundTaskManager::new();
    let keyed = |outcome: TaskOutcome| {
        let work = async move {
            match outcome {
                TaskOutcome::Completed => Ok(()),
                TaskOutcome::Failed => Err("no"),
                TaskOutcome::Panicked => panic!("oh"),
                _ => pending().await,
            }
        };
        tasks.create_task(work).key_in("shared", "k", OnDuplicateKey::Queue)
    };
    keyed(TaskOutcome::Completed).spawn().unwrap();
    keyed(TaskOutcome::Failed).spawn().unwrap();
    keyed(TaskOutcome::Panicked).spawn().unwrap();
    keyed(TaskOutcome::TimedOut).timeout(SECOND).spawn().unwrap();
    let cancelled = keyed(TaskOutcome::Cancelled).spawn().unwrap();
    let aborted = keyed(TaskOutcome::Aborted).spawn().unwrap().abort_on_drop();
    let last = keyed(TaskOutcome::Completed).spawn().unwrap();
    sleep(2 * SECOND).await;
    cancelled.cancel();
    settle().await;
    drop(aborted);
    last.await.unwrap();
    let outcomes: Vec<_> = tasks.recently_finished().iter().map(|end| (end.outcome(), end.attempts())).collect();
    let expected = [
        TaskOutcome::Completed,
        TaskOutcome::Failed,
        TaskOutcome::Panicked,
        TaskOutcome::TimedOut,
        TaskOutcome::Cancelled,
        TaskOutcome::Aborted,
        TaskOutcome::Completed,
    ];
    assert_eq!(outcomes, expected.map(|outcome| (outcome, 1)), "each of them had begun");
}

// ---- Skip.

#[tokio::test(start_paused = true)]
async fn skip_refuses_a_second_task_until_the_first_has_ended() {
    let (log, _guard) = capture();
    let tasks = BackgroundTaskManager::new();
    let (send, receive) = oneshot::channel::<()>();
    let first =
        tasks.create_task(async { sleep(SECOND).await }).key_in("shared", "k", OnDuplicateKey::Skip).spawn().unwrap();
    let work = async move { send.send(()).unwrap() };
    let refused =
        tasks.create_task(work).name("second").key_in("shared", "k", OnDuplicateKey::Skip).spawn().unwrap_err();
    assert_eq!((&refused, refused.as_str()), (&SpawnError::DuplicateKey, "duplicate_key"));
    receive.await.unwrap_err();
    assert_eq!((tasks.stats().spawned, tasks.stats().rejected), (1, 1));
    let line = log.event("background task rejected");
    assert_eq!((line.level, line.field("name")), (Level::DEBUG, "second"));
    assert_eq!(line.field("reason"), "duplicate_key");
    // `spawn_wait` waits for a slot, not for the key.
    let refused =
        tasks.create_task(async {}).key_in("shared", "k", OnDuplicateKey::Skip).spawn_wait().await.unwrap_err();
    assert_eq!(refused, SpawnError::DuplicateKey);
    tasks.create_task(async {}).key_in("shared", "other", OnDuplicateKey::Skip).spawn().unwrap();

    first.await.unwrap();
    tasks.create_task(async {}).key_in("shared", "k", OnDuplicateKey::Skip).spawn().unwrap();
}

#[tokio::test(start_paused = true)]
async fn skip_refuses_while_a_cancelled_task_ends_and_while_one_is_queued() {
    let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().max_running(1).grace_period(2 * SECOND));
    let skip = || tasks.create_task(async {}).key_in("shared", "k", OnDuplicateKey::Skip).spawn();
    let stubborn = tasks
        .create_task_with_context(|_| pending::<()>())
        .key_in("shared", "k", OnDuplicateKey::Queue)
        .spawn()
        .unwrap();
    stubborn.cancel();
    settle().await;
    assert_eq!(skip().unwrap_err(), SpawnError::DuplicateKey);
    let queued = tasks.create_task(async {}).key_in("shared", "other", OnDuplicateKey::Queue).spawn().unwrap();
    let refused = tasks.create_task(async {}).key_in("shared", "other", OnDuplicateKey::Skip).spawn().unwrap_err();
    assert_eq!(refused, SpawnError::DuplicateKey, "one that waits is there already");
    stubborn.await.unwrap_err();
    queued.await.unwrap();
    skip().unwrap();
}

// ---- Replace.

#[tokio::test(start_paused = true)]
async fn a_replaced_task_has_its_grace_period_before_the_new_one_starts() {
    let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().grace_period(5 * SECOND));
    let journal = Journal::default();
    let saves = {
        let journal = journal.clone();
        |task: TaskContext| async move {
            task.cancelled().await;
            journal.add("old saves");
            sleep(2 * SECOND).await;
            journal.add("old ends");
        }
    };
    let old = tasks.create_task_with_context(saves).key_in("shared", "k", OnDuplicateKey::Replace).spawn().unwrap();
    settle().await;
    let began = Instant::now();
    let new = spawn(&tasks, &journal, "new", OnDuplicateKey::Replace);
    settle().await;
    let states: Vec<_> = tasks.task_info().iter().map(agentflow::task::TaskInfo::state).collect();
    assert_eq!(states, [TaskState::Cancelling, TaskState::Queued]);
    new.await.unwrap();
    assert_eq!(began.elapsed(), 3 * SECOND);
    assert_eq!(journal.entries(), ["old saves", "old ends", "new begins", "new ends"]);
    old.await.unwrap();

    // A task without a token is dropped at once, one that ignores its token after its grace period.
    let plain = tasks.create_task(pending::<()>()).key_in("shared", "k", OnDuplicateKey::Replace).spawn().unwrap();
    settle().await;
    let began = Instant::now();
    let stubborn = tasks
        .create_task_with_context(|_| pending::<()>())
        .key_in("shared", "k", OnDuplicateKey::Replace)
        .spawn()
        .unwrap();
    assert_eq!(plain.await.unwrap_err().outcome(), TaskOutcome::Cancelled);
    settle().await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    tasks.create_task(async {}).key_in("shared", "k", OnDuplicateKey::Replace).spawn().unwrap().await.unwrap();
    assert_eq!(began.elapsed(), 5 * SECOND);
    assert_eq!(stubborn.await.unwrap_err().outcome(), TaskOutcome::Aborted);
}

#[tokio::test(start_paused = true)]
async fn only_the_last_of_many_replacing_tasks_runs() {
    // The replaced tasks have been polled or not, and the running one ends at once or not.
    for (settles, listens) in [(false, false), (false, true), (true, false), (true, true)] {
        let tasks = BackgroundTaskManager::new();
        let begun = Journal::default();
        let mut handles = Vec::new();
        for number in 0..10 {
            let begun = begun.clone();
            let work = move |task: TaskContext| async move {
                begun.add(number.to_string());
                if number == 0 && listens {
                    task.cancelled().await;
                    sleep(SECOND / 2).await;
                } else if number == 0 {
                    pending::<()>().await;
                }
            };
            let builder = tasks
                .create_task_with_context(work)
                .key_in("shared", "k", OnDuplicateKey::Replace)
                .grace_period(SECOND);
            handles.push(builder.spawn().unwrap());
            if settles || number == 0 {
                settle().await;
            }
        }
        let last = handles.pop().unwrap();
        last.await.unwrap();
        for handle in handles.drain(1..) {
            assert_eq!(handle.await.unwrap_err().outcome(), TaskOutcome::Cancelled);
        }
        assert_eq!(begun.entries(), ["0", "9"]);
    }
}

#[tokio::test(start_paused = true)]
async fn replace_also_replaces_queued_tasks_and_leaves_other_keys() {
    let (tasks, journal) = (BackgroundTaskManager::new(), Journal::default());
    let other = tasks
        .create_task(async { sleep(SECOND).await })
        .key_in("shared", "other", OnDuplicateKey::Replace)
        .spawn()
        .unwrap();
    let without = tasks.create_task(async { sleep(SECOND).await }).spawn().unwrap();
    let old = ["a", "b"].map(|name| spawn(&tasks, &journal, name, OnDuplicateKey::Queue));
    settle().await;
    spawn(&tasks, &journal, "c", OnDuplicateKey::Replace);
    spawn(&tasks, &journal, "d", OnDuplicateKey::Queue);
    for handle in old {
        assert_eq!(handle.await.unwrap_err().outcome(), TaskOutcome::Cancelled);
    }
    other.await.unwrap();
    without.await.unwrap();
    tasks.wait_for_all(None).await.unwrap();
    assert_eq!(journal.entries(), ["a begins", "c begins", "c ends", "d begins", "d ends"]);
}

#[tokio::test(start_paused = true)]
async fn a_replacing_task_takes_over_the_slot() {
    for spawn_wait in [false, true] {
        let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().max_tasks(1));
        let old = tasks.create_task(pending::<()>()).key_in("shared", "k", OnDuplicateKey::Replace).spawn().unwrap();
        let other = || tasks.create_task(async {}).spawn();
        assert_eq!(other().unwrap_err(), SpawnError::Full);
        let new = tasks.create_task(async { Ok::<_, Infallible>(7) }).key_in("shared", "k", OnDuplicateKey::Replace);
        let new = if spawn_wait { new.spawn_wait().await } else { new.spawn() };
        // The slot passed to the new task and is not free.
        assert_eq!(other().unwrap_err(), SpawnError::Full);
        assert_eq!(new.unwrap().await.unwrap(), 7);
        assert_eq!(old.await.unwrap_err().outcome(), TaskOutcome::Cancelled);
        assert!(other().is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_of_a_burst_of_replacing_tasks_runs_in_a_full_manager() {
    let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().max_tasks(4));
    let journal = Journal::default();
    for number in 0..500 {
        let journal = journal.clone();
        let work = async move { journal.add(number.to_string()) };
        tasks.create_task(work).key_in("shared", "k", OnDuplicateKey::Replace).spawn().unwrap();
    }
    tasks.wait_for_all(None).await.unwrap();
    assert_eq!(journal.entries(), ["499"]);
}

#[tokio::test(start_paused = true)]
async fn a_replacing_task_drops_no_other_task() {
    let options = TaskManagerOptions::new().max_tasks(2).on_full(OnFull::DropOldest);
    let tasks = BackgroundTaskManager::with_options(options);
    let journal = Journal::default();
    let bystander = tasks.create_task(pending::<()>()).spawn().unwrap();
    let old = spawn(&tasks, &journal, "old", OnDuplicateKey::Replace);
    settle().await;
    let new = spawn(&tasks, &journal, "new", OnDuplicateKey::Replace);
    assert_eq!(old.await.unwrap_err().outcome(), TaskOutcome::Cancelled);
    new.await.unwrap();
    assert_eq!(journal.entries(), ["old begins", "new begins", "new ends"]);
    assert!(!bystander.is_finished());
    assert_eq!((tasks.stats().outcomes.evicted, tasks.stats().outcomes.cancelled), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_blocking_task_that_is_replaced_is_waited_for() {
    let tasks = BackgroundTaskManager::new();
    let (go, wait) = mpsc::channel::<()>();
    let (begun, has_begun) = oneshot::channel();
    let journal = Journal::default();
    let old = {
        let journal = journal.clone();
        move |task: TaskContext| {
            begun.send(()).unwrap();
            wait.recv().unwrap();
            assert!(task.is_cancelled());
            journal.add("old ends");
        }
    };
    tasks.create_blocking_task(old).key_in("shared", "k", OnDuplicateKey::Replace).spawn().unwrap();
    has_begun.await.unwrap();
    let new = {
        let journal = journal.clone();
        tasks
            .create_blocking_task(move |_| journal.add("new"))
            .key_in("shared", "k", OnDuplicateKey::Replace)
            .spawn()
            .unwrap()
    };
    settle().await;
    assert_eq!(tasks.stats().queued, 1);
    go.send(()).unwrap();
    new.await.unwrap();
    assert_eq!(journal.entries(), ["old ends", "new"]);
}

// ---- All together.

#[tokio::test(start_paused = true)]
async fn keys_names_and_limits_hold_together() {
    let journal = Journal::default();
    let options = TaskManagerOptions::new().max_running(2).max_running_named("mail", 1);
    let tasks = BackgroundTaskManager::with_options(options);
    let spawn = |name: &'static str, number: u32, key: Option<&'static str>| {
        let journal = journal.clone();
        let work = async move {
            journal.add(number.to_string());
            sleep(SECOND).await;
        };
        let builder = tasks.create_task(work).name(name);
        match key {
            Some(key) => builder.key_in("shared", key, OnDuplicateKey::Queue).spawn().unwrap(),
            None => builder.spawn().unwrap(),
        };
    };
    spawn("mail", 1, Some("a"));
    spawn("mail", 2, Some("b")); // waits for a slot of its name
    spawn("index", 3, Some("a")); // waits for its key
    spawn("index", 4, Some("c"));
    spawn("index", 5, None); // waits for a slot
    let mut seen = 0;
    for now in [&["1", "4"][..], &["2", "3"], &["5"]] {
        settle().await;
        assert_eq!(journal.entries()[seen..], *now);
        seen += now.len();
        sleep(SECOND).await;
    }
    settle().await;
    assert_eq!((tasks.stats().outcomes.completed, tasks.stats().active), (5, 0));
}

#[tokio::test(start_paused = true)]
async fn a_close_cancels_queued_tasks_of_a_key_without_starting_them() {
    let (tasks, journal) = (BackgroundTaskManager::new(), Journal::default());
    for name in ["a", "b", "c"] {
        spawn(&tasks, &journal, name, OnDuplicateKey::Queue);
    }
    let report = tasks.close(Some(3 * SECOND / 2)).await;
    assert_eq!((report.outcomes.completed, report.outcomes.cancelled), (1, 2));
    assert_eq!(journal.entries(), ["a begins", "a ends", "b begins"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_tasks_of_one_key_ever_run_at_once() {
    const KEYS: [&str; 3] = ["a", "b", "c"];
    let tasks =
        BackgroundTaskManager::with_options(TaskManagerOptions::new().max_running(2).grace_period(Duration::ZERO));
    let running: Arc<[AtomicBool; 3]> = Arc::default();
    let (ran, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let spawner = |seed: usize| {
        let (tasks, running) = (tasks.clone(), Arc::clone(&running));
        let (ran, refused) = (Arc::clone(&ran), Arc::clone(&refused));
        tokio::spawn(async move {
            for number in seed..seed + 600 {
                let key = number % KEYS.len();
                let when_busy =
                    [OnDuplicateKey::Queue, OnDuplicateKey::Skip, OnDuplicateKey::Replace][(number / 7) % 3];
                let (running, ran) = (Arc::clone(&running), Arc::clone(&ran));
                let work = async move {
                    assert!(!running[key].swap(true, Ordering::SeqCst), "two at once");
                    let _gone = OnDrop(|| assert!(running[key].swap(false, Ordering::SeqCst)));
                    ran.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                };
                // Half of the tasks end where they are cancelled, the other half by themselves.
                let spawned = if number % 2 == 0 {
                    tasks.create_task(work).key_in("shared", KEYS[key], when_busy).spawn()
                } else {
                    tasks.create_task_with_context(|_| work).key_in("shared", KEYS[key], when_busy).spawn()
                };
                if spawned.is_err() {
                    refused.fetch_add(1, Ordering::SeqCst);
                }
                if number % 5 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        })
    };
    for spawner in [spawner(0), spawner(1)] {
        spawner.await.unwrap();
    }
    tasks.wait_for_all(None).await.unwrap();
    let stats = tasks.stats();
    assert_eq!((stats.outcomes.panicked, stats.active, stats.queued), (0, 0, 0), "{stats}");
    assert_eq!(usize::try_from(stats.rejected).unwrap(), refused.load(Ordering::SeqCst));
    assert_eq!(stats.spawned + stats.rejected, 1_200);
    assert!(ran.load(Ordering::SeqCst) as u64 >= stats.outcomes.completed);
    // All keys are free again.
    for key in KEYS {
        tasks.create_task(async {}).key_in("shared", key, OnDuplicateKey::Skip).spawn().unwrap().await.unwrap();
    }
}

// ---- Scopes.

#[tokio::test(start_paused = true)]
async fn a_key_belongs_to_the_name_of_its_tasks() {
    let tasks = BackgroundTaskManager::new();
    let spawn =
        |name: String, on_duplicate| tasks.create_task(pending::<()>()).name(name).key("k", on_duplicate).spawn();
    let mail = spawn("mail".to_owned(), OnDuplicateKey::Skip).unwrap();
    let index = spawn("index".to_owned(), OnDuplicateKey::Skip).unwrap();
    assert_eq!(spawn("mail".to_owned(), OnDuplicateKey::Skip).unwrap_err(), SpawnError::DuplicateKey);
    settle().await;
    assert!(tasks.task_info().iter().all(|task| task.state() == TaskState::Running), "neither waits for the other");

    spawn("mail".to_owned(), OnDuplicateKey::Replace).unwrap();
    assert!(matches!(mail.await, Err(TaskError::Cancelled)));
    settle().await;
    assert!(!index.is_finished(), "the key of another name is untouched");
}

#[tokio::test(start_paused = true)]
async fn key_in_shares_a_key_among_names_and_the_order_of_calls_does_not_matter() {
    let tasks = BackgroundTaskManager::new();
    let task = || tasks.create_task(pending::<()>());
    task().key_in("account", "k", OnDuplicateKey::Skip).name("export").spawn().unwrap();
    let refused = task().name("delete").key_in("account", "k", OnDuplicateKey::Skip).spawn().unwrap_err();
    assert_eq!(refused, SpawnError::DuplicateKey);
    // The scope of `key` is the name that the task has at its spawn.
    task().key("k", OnDuplicateKey::Skip).name("mail").spawn().unwrap();
    let refused = task().name("mail").key("k", OnDuplicateKey::Skip).spawn().unwrap_err();
    assert_eq!(refused, SpawnError::DuplicateKey);
    assert_eq!(tasks.task_info()[0].key(), Some("k"), "the key is shown without its scope");
}

#[tokio::test(start_paused = true)]
async fn spawn_if_free_returns_none_for_a_taken_key_and_other_errors_as_they_are() {
    let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().max_tasks(1));
    let task = |key: &'static str| tasks.create_task(pending::<()>()).name("t").key(key, OnDuplicateKey::Skip);
    assert!(task("k").spawn_if_free().unwrap().is_some());
    assert!(task("k").spawn_if_free().unwrap().is_none());
    assert_eq!(task("other").spawn_if_free().unwrap_err(), SpawnError::Full);
    tasks.close(Some(Duration::ZERO)).await;
    assert_eq!(task("k").spawn_if_free().unwrap_err(), SpawnError::Closed);
}

#[tokio::test(start_paused = true)]
async fn the_line_of_a_replaced_task_names_the_task_that_replaced_it() {
    let (log, _guard) = capture();
    let tasks = BackgroundTaskManager::new();
    let spawn = |name: &'static str| {
        let task = tasks.create_task(pending::<()>()).name(name);
        task.key_in("account", "k", OnDuplicateKey::Replace).spawn().unwrap()
    };
    let (export, index, mail) = (spawn("export"), spawn("index"), spawn("mail"));
    settle().await;
    mail.cancel();
    for task in [export, index, mail] {
        task.await.unwrap_err();
    }
    let by: Vec<_> = log
        .events("background task cancelled")
        .iter()
        .map(|line| (line.field("name").to_owned(), line.fields.get("replaced_by").cloned()))
        .collect();
    assert_eq!(by.len(), 3);
    for replaced in [("export", Some("index #2")), ("index", Some("mail #3")), ("mail", None)] {
        assert!(by.contains(&(replaced.0.to_owned(), replaced.1.map(str::to_owned))), "{replaced:?} in {by:?}");
    }
}

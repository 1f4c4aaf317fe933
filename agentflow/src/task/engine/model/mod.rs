//! The task manager under a model checker: the production code on [`sync`], with which the checker chooses the next
//! thread at each step. It tries many orders at random, and reports a task that is never woken as a deadlock.
//!
//! A failure prints the schedule that led to it, for `shuttle::replay`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

pub(crate) mod sync;

use std::{
    collections::HashMap,
    future::pending,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::{Either, FutureExt, join, select};
use shuttle::{
    Config, Runner,
    future::{JoinHandle, block_on, yield_now},
    rand::{Rng, thread_rng},
    scheduler::{PctScheduler, RandomScheduler},
};
use tokio::sync::oneshot;

use crate::run_id::RunId;
use crate::task::filter::Selection;
use crate::task::{
    BackgroundTaskManager, CloseReport, FinishedTask, OnClose, OnDuplicateKey, OnFull, OnRunEnd, OutcomeCounts,
    RunTasks, SpawnError, TaskContext, TaskError, TaskEvent, TaskHandle, TaskId, TaskInfo, TaskManagerOptions,
    TaskOutcome,
};

/// Bounds of different lengths. The checker chooses when each of them is over.
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// Runs the model in this many orders: half of them chosen step by step, half of them with few changes of priority.
fn check<F>(orders: usize, model: fn() -> F)
where
    F: Future<Output = ()> + 'static,
{
    let mut config = Config::new();
    config.stack_size = 256 * 1024;
    config.silence_warnings = true;
    // The threads of a failed order can't be shut down gracefully.
    config.ungraceful_shutdown_config.immediately_return_on_panic = true;
    Runner::new(RandomScheduler::new(orders / 2), config.clone()).run(move || block_on(model()));
    Runner::new(PctScheduler::new(3, orders / 2), config).run(move || block_on(model()));
}

/// Runs the action on a thread of its own.
fn go<F>(action: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    shuttle::future::spawn(action)
}

async fn steps(steps: usize) {
    for _ in 0..steps {
        yield_now().await;
    }
}

fn up_to(max: usize) -> usize {
    thread_rng().gen_range(0..=max)
}

fn one_in(times: usize) -> bool {
    up_to(times - 1) == 0
}

fn manager(options: TaskManagerOptions) -> BackgroundTaskManager {
    BackgroundTaskManager::with_options(options.grace_period(HOUR))
}

/// Returns the task's outcome as its handle reports it.
async fn outcome(handle: TaskHandle<()>) -> (TaskId, TaskOutcome) {
    let id = handle.id();
    (id, handle.await.as_ref().map_or_else(TaskError::outcome, |()| TaskOutcome::Completed))
}

/// Asserts that no task lives, that the numbers hold no trace of live tasks, and that each task ended once, as its
/// handle reports.
fn assert_over(tasks: &BackgroundTaskManager, outcomes: &[(TaskId, TaskOutcome)]) {
    let numbers = tasks.stats();
    // A task that panics is one whose own assertion failed.
    assert_eq!((numbers.active, numbers.outcomes.panicked, tasks.task_info().len()), (0, 0, 0));
    assert_eq!((numbers.delayed, numbers.queued), (0, 0));
    {
        let state = tasks.registry.lock();
        assert_eq!((state.live(), state.in_flight(), state.cancel_last_except(&[])), (0, 0, 0));
    }
    let ends: HashMap<_, _> = tasks.recently_finished().iter().map(|end| (end.id(), end.outcome())).collect();
    assert_eq!((ends.len() as u64, tasks.recently_finished().len()), (numbers.spawned, ends.len()));
    let mut counted = OutcomeCounts::default();
    for outcome in ends.values() {
        counted.count(*outcome);
    }
    assert_eq!(counted, numbers.outcomes);
    for (id, outcome) in outcomes {
        assert_eq!(ends[id], *outcome);
    }
}

/// A count of tasks that do something at once.
#[derive(Clone, Debug, Default)]
struct Crowd(Arc<AtomicUsize>);

impl Crowd {
    /// Takes a few steps as one of at most `max` tasks.
    async fn join(self, max: usize, length: usize) {
        struct Left(Crowd);

        impl Drop for Left {
            fn drop(&mut self) {
                self.0.0.fetch_sub(1, Ordering::SeqCst);
            }
        }

        let before = self.0.fetch_add(1, Ordering::SeqCst);
        let _left = Left(self);
        assert!(before < max, "{} at once", before + 1);
        steps(length).await;
    }
}

#[test]
fn a_spawn_is_counted_or_refused_and_after_a_close_nothing_lives() {
    check(4_000, || async {
        let tasks = manager(TaskManagerOptions::new());
        // A run may spawn until the manager is closed, others until it begins to close.
        let node = tasks.labelled(RunId::new(), "NODE".into(), None, Arc::default());
        let spawners: Vec<_> = [tasks.clone(), node]
            .map(|tasks| {
                go(async move {
                    let first = tasks.create_task(steps(up_to(2))).spawn();
                    let second = tasks.create_task(steps(1)).spawn();
                    [first, second]
                })
            })
            .into_iter()
            .collect();
        let report = tasks.close(None).await;
        assert_eq!(tasks.task_count(), 0);
        assert!(report.is_clean());
        assert_eq!(tasks.create_task(steps(0)).spawn().map(drop), Err(SpawnError::Closed));

        let mut outcomes = Vec::new();
        let mut refused = 1;
        for spawner in spawners {
            for spawned in spawner.await.unwrap() {
                match spawned {
                    Ok(handle) => outcomes.push(outcome(handle).await),
                    Err(error) => {
                        assert_eq!(error, SpawnError::Closed);
                        refused += 1;
                    }
                }
            }
        }
        assert_over(&tasks, &outcomes);
        assert!(outcomes.iter().all(|(_, outcome)| *outcome == TaskOutcome::Completed));
        assert_eq!((tasks.stats().spawned, tasks.stats().rejected), (outcomes.len() as u64, refused));
    });
}

#[test]
fn however_many_want_a_task_to_end_it_ends_once() {
    check(6_000, || async {
        let options = TaskManagerOptions::new().max_tasks(1).on_full(OnFull::DropOldest);
        let tasks = manager(options);
        let length = up_to(6);
        let handle = match up_to(3) {
            0 => tasks.create_task(steps(length)).timeout(HOUR).spawn(),
            1 => tasks.create_task(pending::<()>()).timeout(HOUR).spawn(),
            2 => {
                let listens = |task: TaskContext| async move {
                    task.cancelled().await;
                    steps(up_to(3)).await;
                };
                tasks.create_task_with_context(listens).timeout(DAY).idle_timeout(HOUR).spawn()
            }
            _ => tasks.create_blocking_task(|_| ()).timeout(HOUR).spawn(),
        };
        let handle = handle.unwrap();
        let id = handle.id();

        let actors = [
            go({
                let tasks = tasks.clone();
                async move {
                    tasks.cancel(id);
                }
            }),
            go({
                let tasks = tasks.clone();
                async move {
                    // Evicts it if it lives and can be evicted.
                    let evicts = tasks.create_task(steps(0)).spawn();
                    assert!(!matches!(evicts, Err(SpawnError::Closed | SpawnError::DuplicateKey)));
                }
            }),
        ];
        let handle = if one_in(2) {
            drop(handle.abort_on_drop());
            None
        } else {
            Some(handle)
        };
        for actor in actors {
            actor.await.unwrap();
        }
        if one_in(2) {
            tasks.close(Some(DAY)).await;
        }
        tasks.wait_for_all(None).await.unwrap();
        let outcomes = match handle {
            Some(handle) => vec![outcome(handle).await],
            None => Vec::new(),
        };
        assert_over(&tasks, &outcomes);
    });
}

#[test]
fn a_wait_ends_when_all_that_lived_have_ended_and_not_before() {
    check(4_000, || async {
        let tasks = manager(TaskManagerOptions::new());
        let before: Vec<_> = (0..2).map(|length| tasks.create_task(steps(length)).spawn().unwrap()).collect();
        let spawner = go({
            let tasks = tasks.clone();
            async move {
                for length in 0..2 {
                    tasks.create_task(steps(length)).spawn().unwrap();
                }
            }
        });
        let bounded = go({
            let tasks = tasks.clone();
            async move {
                if let Err(still) = tasks.wait_for_all(Some(HOUR)).await {
                    assert!(!still.still_running.is_empty());
                }
            }
        });
        tasks.wait_for_all(None).await.unwrap();
        assert!(before.iter().all(TaskHandle::is_finished));
        assert!(before.into_iter().all(|handle| handle.now_or_never().is_some()));
        spawner.await.unwrap();
        bounded.await.unwrap();
        tasks.wait_for_all(None).await.unwrap();
        assert_over(&tasks, &[]);
    });
}

#[test]
fn a_task_that_is_stopped_is_always_woken() {
    check(4_000, || async {
        let tasks = manager(TaskManagerOptions::new());
        let parked = tasks.create_task(pending::<()>()).spawn().unwrap();
        let stubborn = tasks.create_task_with_context(|_| pending::<()>()).spawn().unwrap();
        let listening = tasks.create_task_with_context(|task| async move { task.cancelled().await }).spawn().unwrap();
        let aborted = tasks.create_task_with_context(|_| pending::<()>()).spawn().unwrap().abort_on_drop();
        let id = aborted.id();
        let aborts = go(async move { drop(aborted) });
        parked.cancel();
        stubborn.cancel();
        listening.cancel();
        let outcomes = [outcome(parked).await, outcome(stubborn).await, outcome(listening).await];
        aborts.await.unwrap();
        tasks.wait_for_all(None).await.unwrap();
        assert_over(&tasks, &[&outcomes[..], &[(id, TaskOutcome::Aborted)]].concat());
        let expected = [TaskOutcome::Cancelled, TaskOutcome::Aborted, TaskOutcome::Completed];
        assert_eq!(outcomes.map(|(_, outcome)| outcome), expected);
    });
}

#[test]
fn each_task_that_cancel_all_cancels_is_in_its_report() {
    check(1_000, || async {
        let tasks = manager(TaskManagerOptions::new());
        let spawner = go({
            let tasks = tasks.clone();
            async move { tasks.create_task(pending::<()>()).name("new").spawn().map(drop) }
        });
        let before: Vec<_> = (0..2).map(|_| tasks.create_task(pending::<()>()).spawn().unwrap().id()).collect();
        let report = tasks.cancel_all().await;
        let seen = report.ended.iter().map(FinishedTask::id).chain(report.still_running.iter().map(TaskInfo::id));
        let seen: Vec<_> = seen.collect();
        assert!(before.iter().all(|id| seen.contains(id)));
        spawner.await.unwrap().unwrap();
        tasks.cancel_named("new");
        tasks.wait_for_all(None).await.unwrap();
        assert_eq!(tasks.stats().outcomes.cancelled, 3);
        assert_over(&tasks, &[]);
    });
}

#[test]
fn no_more_run_than_may_and_none_is_left_in_the_queue() {
    check(4_000, || async {
        const MAX: usize = 2;
        let tasks = manager(TaskManagerOptions::new().max_running(MAX).max_running_named("named", 1));
        let (all, named) = (Crowd::default(), Crowd::default());
        let spawners: Vec<_> = (0..2)
            .map(|length| {
                let (tasks, all, named) = (tasks.clone(), all.clone(), named.clone());
                go(async move {
                    let work = {
                        let all = all.clone();
                        async move {
                            join(all.join(MAX, length), named.join(1, length)).await;
                        }
                    };
                    let first = tasks.create_task(work).name("named").spawn().unwrap();
                    let second = tasks.create_task(all.clone().join(MAX, 1)).spawn().unwrap();
                    let third = tasks.create_task(all.join(MAX, 0)).queue_timeout(HOUR).spawn().unwrap();
                    [first, second, third]
                })
            })
            .collect();
        let canceller = go({
            let tasks = tasks.clone();
            async move { tasks.cancel_named("named") }
        });
        let mut outcomes = Vec::new();
        for spawner in spawners {
            for handle in spawner.await.unwrap() {
                outcomes.push(outcome(handle).await);
            }
        }
        canceller.await.unwrap();
        assert_over(&tasks, &outcomes);
        // No slot was lost: as many tasks as may run start at once.
        for _ in 0..MAX {
            tasks.create_task(steps(1)).spawn().unwrap();
        }
        assert_eq!(tasks.stats().queued, 0);
        tasks.wait_for_all(None).await.unwrap();
    });
}

#[test]
fn no_spawn_waits_while_there_is_room() {
    check(4_000, || async {
        const MAX: usize = 2;
        let tasks = manager(TaskManagerOptions::new().max_tasks(MAX));
        let crowd = Crowd::default();
        let spawners: Vec<_> = (0..4)
            .map(|number| {
                let (tasks, crowd) = (tasks.clone(), crowd.clone());
                go(async move {
                    let spawn = pin!(tasks.create_task(crowd.join(MAX, up_to(2))).spawn_wait());
                    if number == 0 {
                        // One spawn is dropped, perhaps just after it was notified of a free slot.
                        let patience = pin!(steps(up_to(8)));
                        match select(spawn, patience).await {
                            Either::Left((spawned, _)) => drop(spawned.unwrap()),
                            Either::Right(_) => {}
                        }
                    } else {
                        drop(spawn.await.unwrap());
                    }
                })
            })
            .collect();
        for spawner in spawners {
            spawner.await.unwrap();
        }
        tasks.wait_for_all(None).await.unwrap();
        assert_over(&tasks, &[]);
        assert!((3..=4).contains(&tasks.stats().outcomes.completed));
    });
}

#[test]
fn each_free_slot_wakes_a_waiting_spawn() {
    check(2_000, || async {
        let tasks = manager(TaskManagerOptions::new().max_tasks(2));
        for _ in 0..2 {
            tasks.create_task(steps(up_to(2))).spawn().unwrap();
        }
        // The waiting spawns don't free slots for each other.
        let waiters = [(); 2].map(|()| {
            let tasks = tasks.clone();
            go(async move { tasks.create_task(pending::<()>()).name("waited").spawn_wait().await.map(drop) })
        });
        for waiter in waiters {
            waiter.await.unwrap().unwrap();
        }
        assert_eq!(tasks.cancel_named("waited"), 2);
        tasks.wait_for_all(None).await.unwrap();
        assert_over(&tasks, &[]);
    });
}

#[test]
fn a_slot_that_is_refused_to_one_goes_to_the_next() {
    check(2_000, || async {
        let tasks = manager(TaskManagerOptions::new().max_tasks(2));
        let (lends, lent) = oneshot::channel();
        let ends = |task: TaskContext| async move { lends.send(task).map_err(|_| "the receiver is gone") };
        tasks.create_task_with_context(ends).spawn().unwrap();
        // It ends only if its child gets the room that the other one leaves.
        let parent =
            |task: TaskContext| async move { task.manager().create_task(steps(0)).spawn_wait().await.map(drop) };
        let parent = tasks.create_task_with_context(parent).spawn().unwrap();
        // This spawn may be notified of a slot that it may not take any more, because its task has ended.
        let late = go(async move { lent.await.unwrap().manager().create_task(steps(0)).spawn_wait().await.map(drop) });
        let report = tasks.close(None).await;
        assert!(report.is_clean());
        assert!(parent.await.is_ok());
        assert!(matches!(late.await.unwrap(), Ok(()) | Err(SpawnError::Closed)));
        assert_over(&tasks, &[]);
    });
}

#[test]
fn a_spawn_that_waits_for_room_is_refused_when_a_close_begins() {
    check(1_000, || async {
        let tasks = manager(TaskManagerOptions::new().max_tasks(1));
        let (refused, is_refused) = oneshot::channel();
        let full = tasks.create_task(async { is_refused.await.map(|why: SpawnError| why.as_str()) });
        let full = full.spawn().unwrap();
        let waits = go({
            let tasks = tasks.clone();
            async move { refused.send(tasks.create_task(steps(0)).spawn_wait().await.unwrap_err()) }
        });
        tasks.close(None).await;
        assert_eq!((full.await.unwrap(), waits.await.unwrap()), ("closed", Ok(())));
        assert_over(&tasks, &[]);
    });
}

#[test]
fn no_two_of_one_key_run_at_once_and_each_gets_its_turn() {
    check(4_000, || async {
        let tasks = manager(TaskManagerOptions::new().max_running(2));
        let crowd = Crowd::default();
        let spawners: Vec<_> =
            [OnDuplicateKey::Queue, OnDuplicateKey::Replace, OnDuplicateKey::Skip, OnDuplicateKey::Queue]
                .map(|on_duplicate| {
                    let (tasks, crowd) = (tasks.clone(), crowd.clone());
                    go(async move {
                        tasks.create_task(crowd.join(1, up_to(3))).key_in("shared", "key", on_duplicate).spawn()
                    })
                })
                .into_iter()
                .collect();
        let mut outcomes = Vec::new();
        for spawner in spawners {
            match spawner.await.unwrap() {
                Ok(handle) => outcomes.push(outcome(handle).await),
                Err(error) => assert_eq!(error, SpawnError::DuplicateKey),
            }
        }
        assert!(outcomes.len() >= 3);
        assert_over(&tasks, &outcomes);
        let alone = tasks.create_task(steps(0)).key_in("shared", "key", OnDuplicateKey::Skip).spawn().unwrap();
        assert_eq!(tasks.stats().queued, 0);
        alone.await.unwrap();
    });
}

#[test]
fn a_delay_ends_once_whether_its_timer_or_a_close_ends_it() {
    check(4_000, || async {
        let tasks = manager(TaskManagerOptions::new().max_running(1));
        let crowd = Crowd::default();
        let work = || tasks.create_task(crowd.clone().join(1, up_to(2)));
        let later = |on_close| {
            let task = work().key_in("shared", "key", OnDuplicateKey::Queue).delay(HOUR).on_close(on_close);
            task.spawn().unwrap()
        };
        let (kept, dropped) = (later(OnClose::Run), later(OnClose::Drop));
        let other = work().spawn().unwrap();
        let is_cancelled = one_in(3);
        let (id, canceller) = (kept.id(), tasks.clone());
        let cancel = go(async move {
            if is_cancelled {
                canceller.cancel(id);
            }
        });
        steps(up_to(10)).await;
        let report = tasks.close(None).await;
        cancel.await.unwrap();
        assert!(report.is_clean());
        let outcomes = [outcome(kept).await, outcome(dropped).await, outcome(other).await];
        assert_over(&tasks, &outcomes);
        let [kept, dropped, other] = outcomes.map(|(_, outcome)| outcome);
        assert!(kept == TaskOutcome::Completed || (is_cancelled && kept == TaskOutcome::Cancelled));
        assert!(matches!(dropped, TaskOutcome::Completed | TaskOutcome::Cancelled));
        assert_eq!(other, TaskOutcome::Completed);
    });
}

#[test]
fn any_number_may_close_and_each_gets_the_complete_report() {
    async fn spawn_children(task: TaskContext) {
        if task.manager().create_task(steps(1)).spawn().is_err() {
            // Only what cuts the parent off as well refuses its child.
            task.cancelled().await;
        }
        steps(up_to(2)).await;
    }

    fn assert_tells_all(report: &CloseReport, tasks: &BackgroundTaskManager) {
        let ended = report.outcomes.total();
        assert_eq!(ended + report.still_running.len() as u64, tasks.stats().spawned);
        let unfinished = report.unfinished.iter().filter(|end| end.outcome() != TaskOutcome::Completed).count();
        assert_eq!(unfinished as u64, report.outcomes.cancelled + report.outcomes.aborted);
    }

    check(4_000, || async {
        let tasks = manager(TaskManagerOptions::new());
        // Then all ends are counted that there are.
        tasks.drain();
        let node = tasks.labelled(RunId::new(), "NODE".into(), None, Arc::default());
        let is_bounded = one_in(2);
        let parked =
            is_bounded.then(|| node.create_task_with_context(|_| pending::<()>()).cancel_last().spawn().unwrap());
        let spawned = node.create_task_with_context(spawn_children).spawn().unwrap();
        let closers: Vec<_> = [DAY, HOUR]
            .map(|bound| {
                let tasks = tasks.clone();
                go(async move {
                    let report = tasks.close(is_bounded.then_some(bound)).await;
                    assert_eq!(tasks.create_task(steps(0)).spawn().map(drop), Err(SpawnError::Closed));
                    report
                })
            })
            .into_iter()
            .collect();
        let mut reports = Vec::new();
        for closer in closers {
            reports.push(closer.await.unwrap());
        }
        if is_bounded {
            tasks.wait_for_all(None).await.unwrap();
        } else {
            assert!(reports.iter().all(CloseReport::is_clean));
            assert_eq!(tasks.task_count(), 0);
        }
        for report in &reports {
            assert_tells_all(report, &tasks);
        }
        let mut outcomes = vec![outcome(spawned).await];
        if let Some(parked) = parked {
            outcomes.push(outcome(parked).await);
            assert_eq!(outcomes[1].1, TaskOutcome::Aborted);
        }
        assert_over(&tasks, &outcomes);
    });
}

#[test]
fn a_closure_is_called_or_dropped_and_never_both() {
    check(4_000, || async {
        let tasks = manager(TaskManagerOptions::new());
        let (called, captured) = (Arc::new(AtomicUsize::new(0)), Arc::new(()));
        let closure = {
            let (called, captured) = (Arc::clone(&called), Arc::clone(&captured));
            move |_: TaskContext| {
                called.fetch_add(1, Ordering::SeqCst);
                drop(captured);
            }
        };
        let mut handle = tasks.create_blocking_task(closure).queue_timeout(HOUR).timeout(DAY).spawn().unwrap();
        let id = handle.id();
        let canceller = go({
            let tasks = tasks.clone();
            async move {
                steps(up_to(2)).await;
                tasks.cancel(id)
            }
        });
        let outcome = (&mut handle).await.as_ref().map_or_else(TaskError::outcome, |()| TaskOutcome::Completed);
        // Whatever ended it, its captures are gone, and the closure was called if that is the outcome.
        let was_called = outcome == TaskOutcome::Completed;
        assert_eq!((called.load(Ordering::SeqCst), Arc::strong_count(&captured)), (usize::from(was_called), 1));
        assert!(handle.is_finished());
        assert_eq!(tasks.recently_finished()[0].attempts(), u32::from(was_called));
        canceller.await.unwrap();
        assert_over(&tasks, &[(id, outcome)]);
    });
}

#[test]
fn the_end_of_a_run_reaches_each_of_its_tasks() {
    check(4_000, || async {
        let tasks = manager(TaskManagerOptions::new());
        let run = Arc::new(RunTasks::default());
        let node = tasks.labelled(RunId::new(), "NODE".into(), None, Arc::clone(&run));
        let spawner = go(async move {
            let cancelled = node.create_task(pending::<()>()).on_run_end(OnRunEnd::Cancel).spawn();
            let ends = node.create_task(steps(up_to(2))).on_run_end(OnRunEnd::Cancel).spawn();
            [cancelled, ends]
        });
        steps(up_to(2)).await;
        run.run_ended();
        let mut outcomes = Vec::new();
        for (spawned, is_pending) in spawner.await.unwrap().into_iter().zip([true, false]) {
            match spawned {
                Ok(handle) => {
                    outcomes.push(outcome(handle).await);
                    assert!(!is_pending || outcomes[0].1 == TaskOutcome::Cancelled);
                }
                Err(error) => assert_eq!(error, SpawnError::RunEnded),
            }
        }
        assert_over(&tasks, &outcomes);
    });
}

#[test]
fn a_run_waits_for_those_that_it_is_to_wait_for_and_for_no_longer() {
    check(4_000, || async {
        let tasks = manager(TaskManagerOptions::new());
        let run = Arc::new(RunTasks::default());
        let node = tasks.labelled(RunId::new(), "NODE".into(), None, Arc::clone(&run));
        let parent = |task: TaskContext| async move {
            steps(up_to(2)).await;
            task.manager().create_task(steps(1)).on_run_end(OnRunEnd::Wait).spawn().unwrap();
        };
        let parent = node.create_task_with_context(parent).on_run_end(OnRunEnd::Wait).spawn().unwrap();
        let cancelled = node.create_task(pending::<()>()).on_run_end(OnRunEnd::Cancel).spawn().unwrap();
        run.wait().await;
        assert!(parent.is_finished() && !cancelled.is_finished());
        assert_eq!((tasks.stats().spawned, tasks.stats().outcomes.completed), (3, 2));
        run.run_ended();
        assert_eq!(outcome(cancelled).await.1, TaskOutcome::Cancelled);
        assert_over(&tasks, &[]);
    });
}

#[test]
fn an_evicted_task_releases_its_slot_once() {
    check(4_000, || async {
        const MAX: usize = 2;
        let options = TaskManagerOptions::new().max_tasks(MAX).on_full(OnFull::DropOldest).max_running(1);
        let tasks = manager(options);
        let spawners: Vec<_> = (0..3)
            .map(|length| {
                let tasks = tasks.clone();
                go(async move {
                    let spawned = [0, 1].map(|more| tasks.create_task(steps(length + more)).spawn().unwrap());
                    assert!(tasks.registry.lock().in_flight() <= MAX);
                    spawned
                })
            })
            .collect();
        let mut outcomes = Vec::new();
        for spawner in spawners {
            for handle in spawner.await.unwrap() {
                outcomes.push(outcome(handle).await);
            }
        }
        assert_over(&tasks, &outcomes);
        let kinds = [TaskOutcome::Completed, TaskOutcome::Evicted];
        assert!(outcomes.iter().all(|(_, outcome)| kinds.contains(outcome)));
    });
}

#[test]
fn when_the_last_owner_goes_so_do_the_tasks() {
    check(2_000, || async {
        let tasks = manager(TaskManagerOptions::new());
        let registry = Arc::clone(&tasks.registry);
        let parent = |task: TaskContext| async move {
            // Either it is refused, or it is cancelled with the others.
            let _ = task.manager().create_task(pending::<()>()).spawn();
            task.cancelled().await;
        };
        let parent = tasks.create_task_with_context(parent).spawn().unwrap();
        let owner = go(async move { drop(tasks) });
        assert_eq!(outcome(parent).await.1, TaskOutcome::Completed);
        owner.await.unwrap();
        registry.wait_for(&Selection::All, &[], None).await;
        let stats = registry.lock().stats();
        assert_eq!((stats.active, stats.outcomes.completed, stats.outcomes.cancelled), (0, 1, stats.spawned - 1));
    });
}

#[test]
fn a_watcher_sees_each_task_begin_and_end_and_then_the_end_of_all() {
    check(6_000, || async {
        let tasks = manager(TaskManagerOptions::new());
        let mut events = tasks.events();
        let watcher = go(async move {
            let mut seen: HashMap<TaskId, Vec<&'static str>> = HashMap::new();
            while let Some(event) = events.next().await {
                match event {
                    TaskEvent::Spawned(task) => seen.entry(task.id()).or_default().push("spawned"),
                    TaskEvent::Started(task) => seen.entry(task.id()).or_default().push("started"),
                    TaskEvent::Ended(end) => seen.entry(end.id()).or_default().push("ended"),
                    other => panic!("{other:?}"),
                }
            }
            seen
        });
        let spawner = go({
            let tasks = tasks.clone();
            async move { [0, 0, 1].map(|length| tasks.create_task(steps(length)).spawn().is_ok()) }
        });
        // Whenever it begins to watch, its stream ends.
        let late = go({
            let tasks = tasks.clone();
            async move { while tasks.events().next().await.is_some() {} }
        });
        tasks.close(None).await;
        let seen = watcher.await.unwrap();
        let accepted = spawner.await.unwrap().into_iter().filter(|is_ok| *is_ok).count();
        late.await.unwrap();
        assert_eq!(seen.len(), accepted);
        assert!(seen.values().all(|events| *events == ["spawned", "started", "ended"]), "{seen:?}");
    });
}

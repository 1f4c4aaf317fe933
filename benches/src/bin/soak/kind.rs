//! [`Kind`]: the sorts of tasks in a soak.

use std::{future::pending, thread, time::Duration};

use agentflow::{
    BackgroundTaskManager, TaskContext,
    task::{OnDuplicateKey, SpawnError, TaskHandle, TaskOutcome},
};
use tokio::{sync::OwnedSemaphorePermit, task::yield_now, time::sleep};

/// The message of the tasks' panics, by which the hook recognizes them.
pub(crate) const PANIC: &str = "a task of the soak panics";

/// A timeout that never fires.
const NEVER_OVER: Duration = Duration::from_hours(1);

/// A sort of task, with its way to be spawned and its expected outcome.
///
/// A new one is a variant, a line in [`MIX`], and an arm in each method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Completes at its first poll.
    Ready,
    /// Sleeps for a moment, with a timeout that never fires.
    Sleeps,
    /// Returns an error.
    Fails,
    /// Panics while it runs.
    Panics,
    /// Is cancelled, and panics while it is dropped.
    PanicsWhenDropped,
    /// Takes longer than its timeout.
    TimesOut,
    /// Has a timeout of zero.
    HasNoTime,
    /// Is cancelled while it waits or before it starts.
    IsCancelled,
    /// Is aborted by the drop of its handle.
    IsAborted,
    /// Is cancelled, and ends by itself within its grace period.
    Listens,
    /// Is cancelled, and ignores its token until its grace period is over.
    DoesNotListen,
    /// Spawns a child that completes and one that fails.
    HasChildren,
    /// Blocks a thread.
    Blocks,
    /// Fails twice and then succeeds, with retries.
    Retries,
    /// Fails in each attempt.
    RetriesInVain,
    /// Is queued, because the number of running tasks of its name is limited.
    TakesTurns,
    /// Is queued until the task with the same key has ended.
    SharesAKey,
}

/// The number of tasks of each kind in a [`deck`].
pub(crate) const MIX: &[(Kind, usize)] = &[
    (Kind::Ready, 200),
    (Kind::Sleeps, 240),
    (Kind::Fails, 100),
    (Kind::Panics, 50),
    (Kind::PanicsWhenDropped, 10),
    (Kind::TimesOut, 90),
    (Kind::HasNoTime, 20),
    (Kind::IsCancelled, 80),
    (Kind::IsAborted, 48),
    (Kind::Listens, 70),
    (Kind::DoesNotListen, 10),
    (Kind::HasChildren, 80),
    (Kind::Blocks, 2),
    (Kind::Retries, 30),
    (Kind::RetriesInVain, 10),
    (Kind::TakesTurns, 60),
    (Kind::SharesAKey, 30),
];

/// The name with a limit on its running tasks, and that limit.
pub(crate) const TAKES_TURNS: (&str, usize) = ("takes turns", 16);

/// Returns the kinds in the order in which they are spawned repeatedly: well mixed, in the shares of [`MIX`].
pub(crate) fn deck() -> Vec<Kind> {
    let mut rest: Vec<_> = MIX.iter().map(|&(kind, count)| (kind, count, 0)).collect();
    let size = MIX.iter().map(|(_, count)| count).sum();
    let mut deck = Vec::with_capacity(size);
    while deck.len() < size {
        // Each kind gains its share as credit; the kind with the most credit comes next and pays for it.
        for (_, share, credit) in &mut rest {
            *credit += share.cast_signed();
        }
        if let Some((kind, _, credit)) = rest.iter_mut().max_by_key(|(_, _, credit)| *credit) {
            deck.push(*kind);
            *credit -= size.cast_signed();
        }
    }
    deck
}

impl Kind {
    /// Returns the expected outcomes of a task of this kind and of its children, with their numbers.
    pub(crate) const fn outcomes(self) -> &'static [(TaskOutcome, u64)] {
        match self {
            Self::Ready
            | Self::Sleeps
            | Self::Listens
            | Self::Blocks
            | Self::Retries
            | Self::TakesTurns
            | Self::SharesAKey => &[(TaskOutcome::Completed, 1)],
            Self::Fails | Self::RetriesInVain => &[(TaskOutcome::Failed, 1)],
            Self::Panics | Self::PanicsWhenDropped => &[(TaskOutcome::Panicked, 1)],
            Self::TimesOut | Self::HasNoTime => &[(TaskOutcome::TimedOut, 1)],
            Self::IsCancelled => &[(TaskOutcome::Cancelled, 1)],
            Self::IsAborted | Self::DoesNotListen => &[(TaskOutcome::Aborted, 1)],
            Self::HasChildren => &[(TaskOutcome::Completed, 2), (TaskOutcome::Failed, 1)],
        }
    }

    /// Spawns a task of this kind. The task and its children hold the permit until they are dropped.
    pub(crate) fn spawn(
        self,
        tasks: &BackgroundTaskManager,
        permit: OwnedSemaphorePermit,
    ) -> Result<TaskHandle<()>, SpawnError> {
        let waiting = async move |permit: OwnedSemaphorePermit| {
            let _permit = permit;
            pending::<()>().await;
        };
        match self {
            Self::Ready => tasks.create_task(async move { drop(permit) }).name("ready").spawn(),
            Self::Sleeps => {
                let sleeps = async move {
                    sleep(Duration::from_millis(2)).await;
                    drop(permit);
                };
                tasks.create_task(sleeps).name("sleeps").timeout(NEVER_OVER).context("why", "to be woken").spawn()
            }
            Self::Fails => tasks.create_task(fails(permit)).name("fails").spawn(),
            Self::Panics => tasks.create_task(panics(permit)).name("panics").spawn(),
            Self::PanicsWhenDropped => {
                // The task owns the bomb from the start, even if it is cancelled before its first poll.
                let bomb = Bomb;
                let dropped = async move {
                    let _bomb = bomb;
                    waiting(permit).await;
                };
                tasks.create_task(dropped).name("panics when dropped").spawn()
            }
            Self::TimesOut => {
                tasks.create_task(waiting(permit)).name("times out").timeout(Duration::from_millis(3)).spawn()
            }
            Self::HasNoTime => tasks.create_task(waiting(permit)).name("has no time").timeout(Duration::ZERO).spawn(),
            Self::IsCancelled => tasks.create_task(waiting(permit)).name("is cancelled").spawn(),
            Self::IsAborted => tasks.create_task(waiting(permit)).name("is aborted").spawn(),
            Self::Listens => {
                let listens = |task: TaskContext| async move {
                    task.cancelled().await;
                    drop(permit);
                };
                tasks.create_task_with_context(listens).name("listens").spawn()
            }
            Self::DoesNotListen => {
                tasks.create_task_with_context(move |_| waiting(permit)).name("does not listen").spawn()
            }
            Self::HasChildren => {
                let has_children = |task: TaskContext| async move {
                    task.manager().create_task(yield_now()).name("child").spawn()?;
                    task.manager().create_task(fails(permit)).name("failing child").spawn()?;
                    Ok::<_, SpawnError>(())
                };
                tasks.create_task_with_context(has_children).name("has children").spawn()
            }
            Self::Blocks => {
                let blocks = |_| {
                    thread::sleep(Duration::from_millis(1));
                    drop(permit);
                };
                tasks.create_blocking_task(blocks).name("blocks").spawn()
            }
            Self::Retries => {
                let attempt = move |number| {
                    let _permit = &permit;
                    async move { if number < 3 { Err("not yet") } else { Ok(()) } }
                };
                tasks.create_retrying_task(attempt).name("retries").retry(3).spawn()
            }
            Self::RetriesInVain => {
                let attempt = move |_| {
                    let _permit = &permit;
                    async { Err::<(), _>("never") }
                };
                tasks.create_retrying_task(attempt).name("retries in vain").retry(2).spawn()
            }
            Self::TakesTurns => tasks.create_task(takes_a_moment(permit)).name(TAKES_TURNS.0).spawn(),
            Self::SharesAKey => {
                tasks.create_task(takes_a_moment(permit)).name("shares a key").key("one", OnDuplicateKey::Queue).spawn()
            }
        }
    }

    /// Cancels, drops or ignores the handle, some time after the spawn.
    pub(crate) fn let_go(self, handle: TaskHandle<()>) {
        match self {
            Self::IsCancelled | Self::PanicsWhenDropped | Self::Listens | Self::DoesNotListen => handle.cancel(),
            Self::IsAborted => drop(handle.abort_on_drop()),
            Self::Ready
            | Self::Sleeps
            | Self::Fails
            | Self::Panics
            | Self::TimesOut
            | Self::HasNoTime
            | Self::HasChildren
            | Self::Blocks
            | Self::Retries
            | Self::RetriesInVain
            | Self::TakesTurns
            | Self::SharesAKey => drop(handle),
        }
    }
}

async fn takes_a_moment(permit: OwnedSemaphorePermit) {
    yield_now().await;
    drop(permit);
}

async fn fails(permit: OwnedSemaphorePermit) -> Result<(), String> {
    yield_now().await;
    drop(permit);
    Err("it was to fail".to_owned())
}

async fn panics(permit: OwnedSemaphorePermit) {
    let _permit = permit;
    yield_now().await;
    panic!("{PANIC}");
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("{PANIC}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deck_has_each_kind_as_often_as_the_mix_says() {
        let deck = deck();
        for (kind, count) in MIX {
            assert_eq!(deck.iter().filter(|other| *other == kind).count(), *count, "{kind:?}");
        }
    }
}

//! [`TaskManagerOptions`]: how a manager behaves.

use std::{borrow::Cow, time::Duration};

/// How a [`BackgroundTaskManager`](crate::BackgroundTaskManager) behaves.
///
/// ```
/// use std::time::Duration;
/// use agentflow::{BackgroundTaskManager, task::{OnFull, TaskManagerOptions}};
///
/// let options = TaskManagerOptions::new()
///     .max_tasks(1_000) // in flight: 990 wait while 10 run
///     .on_full(OnFull::Reject)
///     .max_running(10)
///     .max_running_named("send_email", 2)
///     .history(1_000)
///     .grace_period(Duration::from_secs(5));
/// let tasks = BackgroundTaskManager::with_options(options);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TaskManagerOptions {
    pub(super) history: usize,
    pub(super) grace_period: Duration,
    pub(super) max_tasks: Option<usize>,
    pub(super) on_full: OnFull,
    pub(super) max_running: Option<usize>,
    pub(super) max_running_named: Vec<(Cow<'static, str>, usize)>,
    pub(super) queue_timeout: Option<Duration>,
    pub(super) event_buffer: usize,
}

/// What happens to a spawn when there are [as many tasks as there may be](TaskManagerOptions::max_tasks).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnFull {
    /// The new task is refused: [`spawn`](crate::task::TaskBuilder::spawn) gives
    /// [`SpawnError::Full`](crate::task::SpawnError::Full), and [`spawn_wait`](crate::task::TaskBuilder::spawn_wait) waits for room.
    #[default]
    Reject,
    /// The oldest task is dropped to make room for the new one: the one that has waited longest for its turn, or, if
    /// none waits, the one that was spawned first. Its outcome is [`Evicted`](crate::task::TaskOutcome::Evicted).
    ///
    /// Tasks that [must finish](crate::task::TaskBuilder::cancel_last), blocking tasks, and the task that spawns with those that
    /// spawned it, are never dropped for another one; if there are no others, the new one is refused.
    ///
    /// A dropped task is active, and takes up memory, until the runtime comes to it. Of such tasks there may be as many as
    /// there are places, and a thousand at least; beyond that the new one is refused.
    DropOldest,
}

impl TaskManagerOptions {
    /// The defaults: no limits.
    #[must_use]
    pub fn new() -> Self {
        Self {
            history: 256,
            grace_period: Duration::from_secs(1),
            max_tasks: None,
            on_full: OnFull::Reject,
            max_running: None,
            max_running_named: Vec::new(),
            queue_timeout: None,
            event_buffer: 1024,
        }
    }

    /// How many ends [`recently_finished`](crate::BackgroundTaskManager::recently_finished) remembers; 256 unless told.
    #[must_use]
    pub fn history(mut self, ends: usize) -> Self {
        self.history = ends;
        self
    }

    /// How long a cancelled task that listens to its token may take to end by itself; one second unless told.
    /// [`TaskBuilder::grace_period`](crate::task::TaskBuilder::grace_period) says it for one task.
    #[must_use]
    pub fn grace_period(mut self, grace_period: Duration) -> Self {
        self.grace_period = grace_period;
        self
    }

    /// How many tasks there may be at once, those that wait for their turn included; no limit unless told. Zero counts as
    /// one. A task that is dropped or [replaced](crate::task::OnDuplicateKey::Replace) has no place any more, though it is active until
    /// it has ended.
    #[must_use]
    pub fn max_tasks(mut self, tasks: usize) -> Self {
        self.max_tasks = Some(tasks.max(1));
        self
    }

    /// What happens to a spawn beyond [`max_tasks`](Self::max_tasks); it is refused unless told.
    #[must_use]
    pub fn on_full(mut self, on_full: OnFull) -> Self {
        self.on_full = on_full;
        self
    }

    /// How many tasks may run at once; no limit unless told. The others wait for their turn in the order in which they
    /// were spawned, [`Queued`](crate::task::TaskState::Queued). How many may wait follows from
    /// [`max_tasks`](Self::max_tasks). Zero counts as one.
    ///
    /// A task that waits for another one still takes up its place: where all that run wait for those that don't, nothing
    /// goes on until a timeout.
    #[must_use]
    pub fn max_running(mut self, tasks: usize) -> Self {
        self.max_running = Some(tasks.max(1));
        self
    }

    /// How many tasks of this name may run at once, within [`max_running`](Self::max_running). They don't hold up the
    /// tasks of other names. Zero counts as one.
    #[must_use]
    pub fn max_running_named(mut self, name: impl Into<Cow<'static, str>>, tasks: usize) -> Self {
        let name = name.into();
        self.max_running_named.retain(|(known, _)| *known != name);
        self.max_running_named.push((name, tasks.max(1)));
        self
    }

    /// How long a task may wait for its turn before it is timed out; no limit unless told.
    /// [`TaskBuilder::queue_timeout`](crate::task::TaskBuilder::queue_timeout) says it for one task.
    #[must_use]
    pub fn queue_timeout(mut self, timeout: Duration) -> Self {
        self.queue_timeout = Some(timeout);
        self
    }

    /// How many events a [watcher](crate::BackgroundTaskManager::events) may be behind before it misses some; 1,024
    /// unless told. It is rounded up to a power of two, and is at most 1,048,576. The room for them is allocated when
    /// somebody first watches, and nothing is kept while nobody does.
    #[must_use]
    pub fn event_buffer(mut self, events: usize) -> Self {
        self.event_buffer = events.clamp(1, 1 << 20);
        self
    }
}

impl Default for TaskManagerOptions {
    fn default() -> Self {
        Self::new()
    }
}

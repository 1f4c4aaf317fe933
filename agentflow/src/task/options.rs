//! [`TaskManagerOptions`], and the policies of a spawn: [`OnFull`], [`OnDuplicateKey`], [`OnRunEnd`].

use std::{borrow::Cow, time::Duration};

/// The options of a [`BackgroundTaskManager`](crate::BackgroundTaskManager).
///
/// ```
/// use std::time::Duration;
/// use agentflow::{BackgroundTaskManager, task::{OnFull, TaskManagerOptions}};
///
/// let options = TaskManagerOptions::new()
///     .max_tasks(1_000) // in flight: 990 are queued while 10 run
///     .on_full(OnFull::Reject)
///     .max_running(10)
///     .max_running_named("send_email", 2)
///     .history(1_000)
///     .grace_period(Duration::from_secs(5));
/// let tasks = BackgroundTaskManager::with_options(options);
/// ```
#[derive(Clone, Debug)]
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

/// The effect of a spawn when the manager has as many tasks as [`max_tasks`](TaskManagerOptions::max_tasks) allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnFull {
    /// The new task is refused: [`spawn`](crate::task::TaskBuilder::spawn) returns
    /// [`SpawnError::Full`](crate::task::SpawnError::Full), and
    /// [`spawn_wait`](crate::task::TaskBuilder::spawn_wait) waits for a free slot.
    #[default]
    Reject,
    /// The oldest task is dropped to make room for the new one: of the delayed and queued ones the one that was spawned
    /// first, or, if there are none, the running one that was. Its outcome is [`Evicted`](crate::task::TaskOutcome::Evicted).
    ///
    /// Blocking tasks, tasks that are [cancelled last](crate::task::TaskBuilder::cancel_last), and the spawning task
    /// with its ancestors are never dropped for another one. If there are no others, the new task is refused.
    ///
    /// A dropped task stays active, and takes up memory, until the runtime has dropped its future. There may be as many
    /// such tasks as `max_tasks` allows, and a thousand at least; beyond that the new task is refused.
    DropOldest,
}

/// The effect of spawning a task with the same [key](crate::task::TaskBuilder::key) as a live one.
///
/// Under all three, at most one task per key runs at a time.
///
/// ```
/// use agentflow::task::{OnDuplicateKey, TaskError};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let tasks = agentflow::BackgroundTaskManager::new();
/// let search = |text: &'static str, on_duplicate| {
///     tasks.create_task(async move { Ok::<_, std::io::Error>(text) }).key("search", on_duplicate).spawn()
/// };
/// let typed = search("ag", OnDuplicateKey::Queue)?;
/// let next = search("agent", OnDuplicateKey::Queue)?; // runs after the first
/// let last = search("agentflow", OnDuplicateKey::Replace)?; // cancels both
/// assert!(matches!(typed.await, Err(TaskError::Cancelled)));
/// assert!(matches!(next.await, Err(TaskError::Cancelled)));
/// assert_eq!(last.await?, "agentflow");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnDuplicateKey {
    /// The other tasks with the key are cancelled, and the new one runs when they have ended: the latest counts. Where
    /// slots are [limited](TaskManagerOptions::max_tasks), it takes over a slot of theirs. To debounce, give the task
    /// a [delay](crate::task::TaskBuilder::delay).
    Replace,
    /// The new task is refused with [`SpawnError::DuplicateKey`](crate::task::SpawnError::DuplicateKey): a singleton. A
    /// live task that waits for its delay has the key as well.
    Skip,
    /// The new task is [`Queued`](crate::task::TaskState::Queued) until the others have ended: one after the other.
    /// A task that waits for its delay holds up no other: when the delay is over, it waits for its turn itself.
    Queue,
}

/// The effect of a close on a task that still waits for its [delay](crate::task::TaskBuilder::delay) to end.
///
/// It takes effect when the manager begins to drain, and so for an app at the call of
/// [`aclose`](crate::CompiledGraph::aclose). Other ways to cancel treat a delayed task like any other, dropping the last
/// owner of the manager among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnClose {
    /// The delay is over, and the task runs within the bound of the close: what was accepted is done.
    #[default]
    Run,
    /// The task is cancelled without having begun.
    Drop,
}

/// The effect on a task of the end of the run that spawned it, however the run ends.
///
/// It applies to the tasks that a node spawns with the manager that it is given, and to the tasks that those spawn;
/// each has its own choice. A task that no run spawned is not affected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnRunEnd {
    /// The task lives on: fire and forget.
    #[default]
    Detach,
    /// The task is cancelled when the run has ended, or is dropped. The run doesn't wait for it.
    Cancel,
    /// The run waits for the task before it returns its result. If the run is stopped while it waits (by its token, its
    /// timeout, or the app's shutdown) it waits no longer, its result stands, and the task lives on.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use agentflow::{AgentState, BackgroundTaskManager, NodeError, RunConfig, graph, node, task::OnRunEnd};
    ///
    /// #[node]
    /// async fn answer(state: &mut AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
    ///     let save = async { tokio::time::sleep(Duration::from_millis(1)).await };
    ///     task_manager.create_task(save).name("save").on_run_end(OnRunEnd::Wait).spawn()?;
    ///     Ok(())
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), agentflow::RunError> {
    /// let app = graph! { answer -> END };
    /// app.invoke(AgentState::default(), RunConfig::new()).await?;
    /// assert_eq!(app.task_manager().stats().outcomes.completed, 1);
    /// # Ok(())
    /// # }
    /// ```
    Wait,
}

impl TaskManagerOptions {
    /// Creates the default options, which have no limits.
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

    /// Sets how many finished tasks of each name
    /// [`recently_finished`](crate::BackgroundTaskManager::recently_finished) retains; 256 by default.
    ///
    /// The tasks of all names together are at most 16 times as many. Where there are too many, of a name or of all, the
    /// oldest completed task is forgotten first, and the oldest that did not complete only if there is no other. The task
    /// that ended last is always retained, unless the number is zero.
    #[must_use]
    pub fn history(mut self, tasks: usize) -> Self {
        self.history = tasks;
        self
    }

    /// Sets how long a cancelled task that listens to its token may take to end by itself; one second by default.
    /// [`TaskBuilder::grace_period`](crate::task::TaskBuilder::grace_period) overrides it for one task.
    #[must_use]
    pub fn grace_period(mut self, grace_period: Duration) -> Self {
        self.grace_period = grace_period;
        self
    }

    /// Limits how many tasks may be in flight, queued ones included; no limit by default. Zero counts as one. A task
    /// that was dropped to make room, or [replaced](OnDuplicateKey::Replace), has released its slot, though it is
    /// active until it has ended.
    #[must_use]
    pub fn max_tasks(mut self, tasks: usize) -> Self {
        self.max_tasks = Some(tasks.max(1));
        self
    }

    /// Sets the effect of a spawn beyond [`max_tasks`](Self::max_tasks); it is refused by default.
    #[must_use]
    pub fn on_full(mut self, on_full: OnFull) -> Self {
        self.on_full = on_full;
        self
    }

    /// Limits how many tasks may run at once; no limit by default. The others are
    /// [`Queued`](crate::task::TaskState::Queued), and run in the order in which they were spawned.
    /// [`max_tasks`](Self::max_tasks) limits how many may be queued. Zero counts as one.
    ///
    /// A task that waits for another one still counts as running: if all running tasks wait for queued ones, nothing
    /// goes on until a timeout.
    #[must_use]
    pub fn max_running(mut self, tasks: usize) -> Self {
        self.max_running = Some(tasks.max(1));
        self
    }

    /// Limits how many tasks of this name may run at once, within [`max_running`](Self::max_running). Queued tasks of
    /// this name don't hold up the tasks of other names. Zero counts as one.
    ///
    /// The name is compared exactly. If no task has it until the manager is closed, a warning suggests the name that may
    /// have been meant.
    #[must_use]
    pub fn max_running_named(mut self, name: impl Into<Cow<'static, str>>, tasks: usize) -> Self {
        let name = name.into();
        self.max_running_named.retain(|(known, _)| *known != name);
        self.max_running_named.push((name, tasks.max(1)));
        self
    }

    /// Limits how long a task may be queued before it times out; no limit by default.
    /// [`TaskBuilder::queue_timeout`](crate::task::TaskBuilder::queue_timeout) overrides it for one task.
    #[must_use]
    pub fn queue_timeout(mut self, timeout: Duration) -> Self {
        self.queue_timeout = Some(timeout);
        self
    }

    /// Sets how many events a [watcher](crate::BackgroundTaskManager::events) may be behind before it misses some;
    /// 1,024 by default, 1,048,576 at most. An event is retained until the last watcher has read it, and nothing is
    /// retained while there is no watcher.
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

//! Durable tasks and schedules, as a store holds them.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    id::{OwnerId, StoredTaskId},
    value::Timestamp,
};
use crate::run_id::RunId;

/// The behaviour of a new task if an unfinished one has the same name, scope and key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KeyPolicy {
    /// The new task is not made.
    #[default]
    Skip,
    /// A pending task gets the arguments and the due time of the new one; a running one is cancelled, and the new one
    /// starts after its end.
    Replace,
    /// The new task starts after the other has ended.
    Queue,
}

/// The key of a task.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TaskKey {
    /// The scope of the key: the task's name, unless the caller chose another one.
    pub scope: Arc<str>,
    /// The key.
    pub key: Arc<str>,
    /// The behaviour of a new task if the key is in use.
    pub policy: KeyPolicy,
}

impl TaskKey {
    /// Creates a key.
    #[must_use]
    pub fn new(scope: impl Into<Arc<str>>, key: impl Into<Arc<str>>, policy: KeyPolicy) -> Self {
        Self { scope: scope.into(), key: key.into(), policy }
    }
}

/// A durable task to be made.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NewTask {
    /// The task's id.
    pub id: StoredTaskId,
    /// The name under which its function is registered.
    pub name: Arc<str>,
    /// The arguments, as JSON.
    pub args: Bytes,
    /// Retries, timeouts and log fields: JSON of the library.
    pub policy: Bytes,
    /// The delay after which the task is due, from the store's present time.
    pub delay: Duration,
    /// The time at which the task is due, instead of a delay.
    pub due: Option<Timestamp>,
    /// Tasks of a higher priority are claimed first.
    pub priority: i32,
    /// The key.
    pub key: Option<TaskKey>,
    /// The run that spawned it.
    pub run: Option<RunId>,
    /// The node that spawned it.
    pub node: Option<Arc<str>>,
    /// The schedule that fired it.
    pub schedule: Option<Arc<str>>,
}

impl NewTask {
    /// Creates a task that is due at once.
    #[must_use]
    pub fn new(id: StoredTaskId, name: impl Into<Arc<str>>, args: Bytes, policy: Bytes) -> Self {
        Self {
            id,
            name: name.into(),
            args,
            policy,
            delay: Duration::ZERO,
            due: None,
            priority: 0,
            key: None,
            run: None,
            node: None,
            schedule: None,
        }
    }
}

/// The state of a durable task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TaskStatus {
    /// The task waits for its time, for its key, or for a worker.
    Pending,
    /// An owner runs the task.
    Running,
    /// The task succeeded.
    Done,
    /// The task has failed, and has no attempt left.
    Failed,
    /// The task was cancelled.
    Cancelled,
}

impl TaskStatus {
    /// Returns whether the task has ended.
    #[must_use]
    pub fn has_ended(self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }
}

/// A durable task.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TaskRow {
    /// The task as it was made. After a `Replace` it has the arguments of the newest one.
    pub task: NewTask,
    /// The state of the task.
    pub status: TaskStatus,
    /// The owner that runs it.
    pub owner: Option<OwnerId>,
    /// The number of claims. A write of an earlier epoch is refused.
    pub epoch: u64,
    /// The number of attempts that have failed.
    pub failed_attempts: u32,
    /// The number of deaths of a process since the last attempt that ended.
    pub crashes: u32,
    /// The time at which the task is due.
    pub due: Timestamp,
    /// Set if a cancel is requested of a running task.
    pub cancel: bool,
    /// The text of the last attempt's error.
    pub error: Option<String>,
    /// The time of the first claim, from which the task's timeout counts.
    pub first_claimed_at: Option<Timestamp>,
    /// The time for which a live owner has run the task.
    pub consumed: Duration,
    /// The time at which the task was made.
    pub created_at: Timestamp,
    /// The time of the last change.
    pub updated_at: Timestamp,
}

impl TaskRow {
    /// Creates the row of a new task.
    #[must_use]
    pub fn new(task: NewTask, now: Timestamp) -> Self {
        let due = task.due.unwrap_or_else(|| now.after(task.delay));
        Self {
            task,
            status: TaskStatus::Pending,
            owner: None,
            epoch: 0,
            failed_attempts: 0,
            crashes: 0,
            due,
            cancel: false,
            error: None,
            first_claimed_at: None,
            consumed: Duration::ZERO,
            created_at: now,
            updated_at: now,
        }
    }
}

/// The outcome of making a task.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Enqueued {
    /// The task was made.
    Made(StoredTaskId),
    /// The unfinished task with the same key stands for it.
    Skipped(StoredTaskId),
    /// The pending task with the same key has the new arguments.
    Replaced(StoredTaskId),
    /// A task with this id exists: the request was repeated.
    Known(StoredTaskId),
}

/// A request to claim tasks.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Claim {
    /// The owner.
    pub owner: OwnerId,
    /// The names of the tasks that the owner can run, each with the number of them that it has room for.
    pub names: Vec<(Arc<str>, usize)>,
    /// The greatest number of tasks.
    pub limit: usize,
    /// Takes the oldest due tasks of any priority, instead of the highest priority first.
    pub oldest_first: bool,
}

impl Claim {
    /// Creates a request for tasks of the highest priority.
    #[must_use]
    pub fn new(owner: OwnerId, names: Vec<(Arc<str>, usize)>, limit: usize) -> Self {
        Self { owner, names, limit, oldest_first: false }
    }
}

/// The outcome of a claim.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Claimed {
    /// The tasks, which are running under the owner from now on.
    pub tasks: Vec<TaskRow>,
    /// The tasks that have caused too many crashes and are parked: they have failed.
    pub parked: Vec<StoredTaskId>,
    /// The next time at which a task of these names is due, after the tasks that were claimed.
    pub next_due: Option<Timestamp>,
}

/// The end of an attempt of a task.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TaskEnd {
    /// The task succeeded.
    Done,
    /// The attempt failed, and there is no further one.
    Failed {
        /// The text of the error.
        error: String,
    },
    /// The attempt failed, and the next one is due after the delay.
    Retry {
        /// The text of the error.
        error: String,
        /// The delay, from the store's present time.
        delay: Duration,
    },
    /// The task was stopped because a cancel was requested.
    Cancelled,
}

/// The end of an attempt, of a task that the owner runs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FinishTask {
    /// The task.
    pub task: StoredTaskId,
    /// The epoch of the claim.
    pub epoch: u64,
    /// The end.
    pub end: TaskEnd,
    /// The time for which this owner ran the task.
    pub consumed: Duration,
}

impl FinishTask {
    /// Creates a request.
    #[must_use]
    pub fn new(task: StoredTaskId, epoch: u64, end: TaskEnd) -> Self {
        Self { task, epoch, end, consumed: Duration::ZERO }
    }
}

/// A release of a task that the owner runs: another owner, or the same one, may claim it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReleaseTask {
    /// The task.
    pub task: StoredTaskId,
    /// The epoch of the claim.
    pub epoch: u64,
    /// The delay after which the task is due again.
    pub delay: Duration,
    /// The time for which this owner ran the task.
    pub consumed: Duration,
}

impl ReleaseTask {
    /// Creates a request that makes the task due at once.
    #[must_use]
    pub fn new(task: StoredTaskId, epoch: u64) -> Self {
        Self { task, epoch, delay: Duration::ZERO, consumed: Duration::ZERO }
    }
}

/// The outcome of a request about one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskChanged {
    /// The request was carried out.
    Yes,
    /// The task is running; its owner is asked to stop it.
    Marked(OwnerId),
    /// The task is in a state in which the request has no meaning.
    No(TaskStatus),
    /// There is no such task.
    NotFound,
}

/// A selection of durable tasks, newest first.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct StoredTaskFilter {
    /// Selects these tasks.
    pub ids: Option<Vec<StoredTaskId>>,
    /// Selects the tasks of this name.
    pub name: Option<Arc<str>>,
    /// Selects the tasks in this state.
    pub status: Option<TaskStatus>,
    /// Selects the tasks of this run.
    pub run: Option<RunId>,
    /// Selects the tasks with this key.
    pub key: Option<Arc<str>>,
    /// Selects the tasks that this owner runs.
    pub owner: Option<OwnerId>,
    /// The number of tasks to leave out at the start.
    pub offset: usize,
    /// The greatest number of tasks; `None` for all.
    pub limit: Option<usize>,
}

/// The number of ended tasks that a store keeps for each name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskRetention {
    /// The number of tasks that succeeded or were cancelled.
    pub ended: usize,
    /// The number of tasks that failed.
    pub failed: usize,
}

impl Default for TaskRetention {
    fn default() -> Self {
        Self { ended: 1_000, failed: 10_000 }
    }
}

/// The behaviour of a schedule if the task of its last firing has not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Overlap {
    /// The firing is left out.
    #[default]
    Skip,
    /// The new task starts after the last one has ended.
    Queue,
    /// Both run.
    Allow,
}

/// A schedule.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ScheduleRow {
    /// The schedule's name, unique in the store.
    pub name: Arc<str>,
    /// The name of the task.
    pub task: Arc<str>,
    /// The expression, the time zone, the arguments and the options: JSON of the library.
    pub definition: Bytes,
    /// The time of the next firing.
    pub next_due: Timestamp,
    /// The task of the last firing.
    pub last_task: Option<StoredTaskId>,
}

impl ScheduleRow {
    /// Creates the row of a schedule that has not fired.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, task: impl Into<Arc<str>>, definition: Bytes, next_due: Timestamp) -> Self {
        Self { name: name.into(), task: task.into(), definition, next_due, last_task: None }
    }
}

/// A request to fire a schedule: in one transaction the task is made and the next due time is set.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Fire {
    /// The name of the schedule.
    pub schedule: Arc<str>,
    /// The due time that fires.
    pub expected_due: Timestamp,
    /// The due time after it.
    pub next_due: Timestamp,
    /// The task.
    pub task: NewTask,
    /// The behaviour if the last task has not ended.
    pub overlap: Overlap,
}

impl Fire {
    /// Creates a request.
    #[must_use]
    pub fn new(schedule: Arc<str>, expected_due: Timestamp, next_due: Timestamp, task: NewTask) -> Self {
        Self { schedule, expected_due, next_due, task, overlap: Overlap::Skip }
    }
}

/// The outcome of firing a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fired {
    /// The task was made.
    Made(StoredTaskId),
    /// The last task has not ended; the due time has moved on.
    Skipped,
    /// The due time is another one: another process has fired it, or the schedule is gone.
    NotDue,
}

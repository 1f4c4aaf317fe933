//! What can be read about tasks: [`TaskInfo`] of a live one, [`TaskEnd`] of one that ended, [`TaskStats`] of all.

use std::{fmt, sync::Arc, time::Duration};

use serde_json::Value;
use tokio::time::Instant;

use super::{
    outcome::TaskOutcome,
    record::{End, Fields, Request, Task},
};
use crate::RunId;

/// Names a task within its manager. Ids count up in the order of spawning and are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub(super) u64);

impl TaskId {
    /// The id as a number, starting at 1.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which run, and which of its nodes, spawned a task.
#[derive(Clone, Debug)]
pub struct TaskOrigin {
    run: RunId,
    node: Arc<str>,
    watch: Option<Arc<dyn Watch>>,
}

/// Is told of the tasks of one run, by whoever spawns or ends them: it must be quick and never wait.
pub(crate) trait Watch: fmt::Debug + Send + Sync {
    fn started(&self, node: &str, task: &str, id: TaskId);
    fn ended(&self, node: &str, task: &str, id: TaskId, outcome: TaskOutcome);
}

impl TaskOrigin {
    pub(super) fn new(run: RunId, node: Arc<str>, watch: Option<Arc<dyn Watch>>) -> Self {
        Self { run, node, watch }
    }

    pub(super) fn started(&self, task: &str, id: TaskId) {
        if let Some(watch) = &self.watch {
            watch.started(&self.node, task, id);
        }
    }

    pub(super) fn ended(&self, task: &str, id: TaskId, outcome: TaskOutcome) {
        if let Some(watch) = &self.watch {
            watch.ended(&self.node, task, id, outcome);
        }
    }

    /// The run.
    #[must_use]
    pub fn run(&self) -> RunId {
        self.run
    }

    /// The name of the node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }
}

/// Who watches is no part of the origin.
impl PartialEq for TaskOrigin {
    fn eq(&self, other: &Self) -> bool {
        (self.run, &self.node) == (other.run, &other.node)
    }
}

impl Eq for TaskOrigin {}

/// Whether a live task has been asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TaskState {
    /// Nobody asked it to stop.
    Running,
    /// It was cancelled, or timed out, and has not ended yet.
    Cancelling,
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Running => "running",
            Self::Cancelling => "cancelling",
        })
    }
}

/// A live task, as it was when [`task_info`](crate::BackgroundTaskManager::task_info) was called.
///
/// Cheap to make and to clone: it shares name and context with the task.
#[derive(Clone)]
pub struct TaskInfo {
    task: Arc<Task>,
    age: Duration,
    state: TaskState,
}

impl TaskInfo {
    pub(super) fn new(task: &Arc<Task>, now: Instant) -> Self {
        let state = match task.request() {
            Request::None => TaskState::Running,
            Request::Cancel | Request::Abort => TaskState::Cancelling,
        };
        Self { task: Arc::clone(task), age: task.age(now), state }
    }

    /// The task's id.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.task.at.id
    }

    /// The task's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.task.spec.name
    }

    /// How long ago the task was spawned.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.age
    }

    /// The task's timeout, counted from its spawn.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.task.spec.timeout
    }

    /// What is left of the timeout; zero if it is over, `None` if the task has none.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.timeout().map(|timeout| timeout.saturating_sub(self.age))
    }

    /// The task's context, in the order in which it was given.
    #[must_use]
    pub fn context(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        context(&self.task.spec.context)
    }

    /// The run and the node that spawned the task; `None` if it wasn't spawned by a node.
    #[must_use]
    pub fn origin(&self) -> Option<&TaskOrigin> {
        self.task.origin.as_deref()
    }

    /// Whether the task has been asked to stop.
    #[must_use]
    pub fn state(&self) -> TaskState {
        self.state
    }
}

impl fmt::Debug for TaskInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskInfo")
            .field("id", &self.id().0)
            .field("name", &self.name())
            .field("age", &self.age)
            .field("timeout", &self.timeout())
            .field("remaining", &self.remaining())
            .field("context", &Json(&self.task.spec.context))
            .field("origin", &self.origin())
            .field("state", &self.state)
            .finish()
    }
}

/// `upload #7 (for 1.2s) {"user":"ada"}`
impl fmt::Display for TaskInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} #{} (for {:.1?})", self.name(), self.id(), self.age)?;
        write_context(f, &self.task.spec.context)
    }
}

/// A task that ended. Cheap to clone.
#[derive(Clone)]
pub struct TaskEnd {
    task: Arc<Task>,
    end: End,
}

impl TaskEnd {
    /// `None` while the task runs.
    pub(super) fn of(task: &Arc<Task>) -> Option<Self> {
        task.end().map(|end| Self { task: Arc::clone(task), end })
    }

    /// The task's id.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.task.at.id
    }

    /// The task's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.task.spec.name
    }

    /// How it ended.
    #[must_use]
    pub fn outcome(&self) -> TaskOutcome {
        self.end.outcome
    }

    /// What the error or the panic said, with its sources, if the task failed or panicked.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.end.error.as_deref()
    }

    /// How old the task was when it ended.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.end.age
    }

    /// The task's timeout, counted from its spawn.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.task.spec.timeout
    }

    /// The task's context, in the order in which it was given.
    #[must_use]
    pub fn context(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        context(&self.task.spec.context)
    }

    /// The run and the node that spawned the task; `None` if it wasn't spawned by a node.
    #[must_use]
    pub fn origin(&self) -> Option<&TaskOrigin> {
        self.task.origin.as_deref()
    }
}

impl fmt::Debug for TaskEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskEnd")
            .field("id", &self.id().0)
            .field("name", &self.name())
            .field("outcome", &self.end.outcome)
            .field("error", &self.error())
            .field("age", &self.end.age)
            .field("timeout", &self.timeout())
            .field("context", &Json(&self.task.spec.context))
            .field("origin", &self.origin())
            .finish()
    }
}

/// `upload #7 (cancelled after 1.2s) {"user":"ada"}`
impl fmt::Display for TaskEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} #{} ({} after {:.1?})", self.name(), self.id(), self.end.outcome, self.end.age)?;
        write_context(f, &self.task.spec.context)
    }
}

/// How many tasks there are and were, read at one moment: `spawned` is always `active` plus all the outcomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskStats {
    /// Tasks that were accepted.
    pub spawned: u64,
    /// Tasks that have not ended.
    pub active: u64,
    /// Tasks that ended [`Completed`](TaskOutcome::Completed).
    pub completed: u64,
    /// Tasks that ended [`Failed`](TaskOutcome::Failed).
    pub failed: u64,
    /// Tasks that ended [`Panicked`](TaskOutcome::Panicked).
    pub panicked: u64,
    /// Tasks that ended [`TimedOut`](TaskOutcome::TimedOut).
    pub timed_out: u64,
    /// Tasks that ended [`Cancelled`](TaskOutcome::Cancelled).
    pub cancelled: u64,
    /// Tasks that ended [`Aborted`](TaskOutcome::Aborted).
    pub aborted: u64,
    /// Spawns that were refused with a [`SpawnError`](crate::SpawnError); they are not in `spawned`.
    pub rejected: u64,
}

impl TaskStats {
    pub(super) fn count(&mut self, outcome: TaskOutcome) {
        *match outcome {
            TaskOutcome::Completed => &mut self.completed,
            TaskOutcome::Failed => &mut self.failed,
            TaskOutcome::Panicked => &mut self.panicked,
            TaskOutcome::TimedOut => &mut self.timed_out,
            TaskOutcome::Cancelled => &mut self.cancelled,
            TaskOutcome::Aborted => &mut self.aborted,
        } += 1;
    }

    /// Each outcome with its count.
    pub(super) fn outcomes(&self) -> [(TaskOutcome, u64); 6] {
        [
            (TaskOutcome::Completed, self.completed),
            (TaskOutcome::Failed, self.failed),
            (TaskOutcome::Panicked, self.panicked),
            (TaskOutcome::TimedOut, self.timed_out),
            (TaskOutcome::Cancelled, self.cancelled),
            (TaskOutcome::Aborted, self.aborted),
        ]
    }
}

/// `12 spawned: 3 active, 8 completed, 1 timed out`, without the outcomes that nothing had.
impl fmt::Display for TaskStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} spawned: {} active", self.spawned, self.active)?;
        for (outcome, count) in self.outcomes() {
            if count > 0 {
                write!(f, ", {count} {outcome}")?;
            }
        }
        if self.rejected > 0 {
            write!(f, "; {} rejected", self.rejected)?;
        }
        Ok(())
    }
}

fn context(fields: &Fields) -> impl ExactSizeIterator<Item = (&str, &Value)> {
    fields.iter().map(|(key, value)| (&**key, value))
}

fn write_context(f: &mut fmt::Formatter<'_>, fields: &Fields) -> fmt::Result {
    if fields.is_empty() { Ok(()) } else { write!(f, " {}", Json(fields)) }
}

/// Fields as one JSON object, written when somebody reads it.
pub(super) struct Json<'a>(pub(super) &'a Fields);

impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, (key, value)) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{}:{value}", Value::from(&**key))?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

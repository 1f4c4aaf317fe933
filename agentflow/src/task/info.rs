//! What can be read about tasks: [`TaskInfo`] of a live one, [`FinishedTask`] of one that ended, [`TaskStats`] of all.

use std::{fmt, sync::Arc, time::Duration};

use serde_json::Value;
use tokio::time::Instant;

use super::{
    outcome::{TaskOutcome, TimeoutKind},
    owner::RunTasks,
    record::{End, Fields, Request, Task},
};
use crate::run_id::RunId;

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
#[derive(Clone)]
pub struct TaskOrigin {
    run: RunId,
    node: Arc<str>,
    watch: Option<Arc<dyn Watch>>,
    tasks: Option<Arc<RunTasks>>,
}

/// Is told of the tasks of one run, by whoever spawns or ends them: it must be quick and never wait.
pub(crate) trait Watch: fmt::Debug + Send + Sync {
    fn started(&self, node: &str, task: &str, id: TaskId);
    fn ended(&self, node: &str, task: &str, id: TaskId, outcome: TaskOutcome);
}

impl TaskOrigin {
    pub(super) fn new(run: RunId, node: Arc<str>, watch: Option<Arc<dyn Watch>>, tasks: Option<Arc<RunTasks>>) -> Self {
        Self { run, node, watch, tasks }
    }

    /// The run's own list of its tasks, if it keeps one.
    pub(super) fn run_tasks(&self) -> Option<&RunTasks> {
        self.tasks.as_deref()
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

impl fmt::Debug for TaskOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskOrigin").field("run", &self.run).field("node", &self.node).finish_non_exhaustive()
    }
}

/// Who watches is no part of the origin.
impl PartialEq for TaskOrigin {
    fn eq(&self, other: &Self) -> bool {
        (self.run, &self.node) == (other.run, &other.node)
    }
}

impl Eq for TaskOrigin {}

/// What a live task is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TaskState {
    /// It waits for its turn: see [`TaskManagerOptions::max_running`](crate::task::TaskManagerOptions::max_running) and
    /// [`TaskBuilder::key`](crate::task::TaskBuilder::key).
    Queued,
    /// It runs, and nobody asked it to stop.
    Running,
    /// It was cancelled, or timed out, and has not ended yet.
    Cancelling,
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Cancelling => "cancelling",
        })
    }
}

/// How far a task is, in its own words: see [`TaskContext::progress`](crate::TaskContext::progress).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TaskProgress {
    /// From 0 to 1.
    pub fraction: f64,
    /// What it is at.
    pub message: Box<str>,
}

impl TaskProgress {
    /// Less than 0 counts as 0, more than 1 as 1, and what is no number as 0.
    pub(super) fn new(fraction: f64, message: String) -> Self {
        // What is added makes a zero of the negative one.
        let fraction = if fraction.is_nan() { 0.0 } else { fraction.clamp(0.0, 1.0) + 0.0 };
        Self { fraction, message: message.into() }
    }
}

/// `40 % uploading`
impl fmt::Display for TaskProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} %", self.fraction * 100.0)?;
        if self.message.is_empty() { Ok(()) } else { write!(f, " {}", self.message) }
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
    attempt: u32,
    progress: Option<Arc<TaskProgress>>,
}

impl TaskInfo {
    pub(super) fn new(task: &Arc<Task>, now: Instant) -> Self {
        let state = match task.request() {
            Request::None if !task.may_run() => TaskState::Queued,
            Request::None => TaskState::Running,
            Request::Cancel | Request::Abort | Request::Evict => TaskState::Cancelling,
        };
        Self { task: Arc::clone(task), age: task.age(now), state, attempt: task.attempt(), progress: task.progress() }
    }

    /// The same with what the task said just now, whatever it has said since.
    pub(super) fn with_progress(self, progress: Arc<TaskProgress>) -> Self {
        Self { progress: Some(progress), ..self }
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

    /// What the task is at.
    #[must_use]
    pub fn state(&self) -> TaskState {
        self.state
    }

    /// Which attempt the task is at, from 1; 0 if it has not begun yet. More than 1 is for tasks that
    /// [retry](crate::BackgroundTaskManager::create_retrying_task).
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// What the task said last of how far it is.
    #[must_use]
    pub fn progress(&self) -> Option<&TaskProgress> {
        self.progress.as_deref()
    }

    /// The task's key.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.task.spec.key().map(|key| &**key)
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
            .field("attempt", &self.attempt)
            .field("progress", &self.progress)
            .field("key", &self.key())
            .finish()
    }
}

/// `upload #7 (for 1.2s, 40 % sending) {"user":"ada"}`
impl fmt::Display for TaskInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} #{} (", self.name(), self.id())?;
        if self.state == TaskState::Queued {
            f.write_str("queued ")?;
        }
        write!(f, "for {:.1?}", self.age)?;
        if let Some(progress) = &self.progress {
            write!(f, ", {progress}")?;
        }
        f.write_str(")")?;
        write_context(f, &self.task.spec.context)
    }
}

/// A task that ended. Cheap to clone.
#[derive(Clone)]
pub struct FinishedTask {
    task: Arc<Task>,
    end: End,
}

impl FinishedTask {
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

    /// Which limit was over, if the task timed out.
    #[must_use]
    pub fn limit(&self) -> Option<TimeoutKind> {
        self.end.limit
    }

    /// How many attempts the task made: 1, unless it [retries](crate::BackgroundTaskManager::create_retrying_task); 0 if
    /// it never began.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.task.attempt()
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

    /// The task's key.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.task.spec.key().map(|key| &**key)
    }
}

impl fmt::Debug for FinishedTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FinishedTask")
            .field("id", &self.id().0)
            .field("name", &self.name())
            .field("outcome", &self.end.outcome)
            .field("error", &self.error())
            .field("limit", &self.end.limit)
            .field("attempts", &self.attempts())
            .field("age", &self.end.age)
            .field("timeout", &self.timeout())
            .field("context", &Json(&self.task.spec.context))
            .field("origin", &self.origin())
            .field("key", &self.key())
            .finish()
    }
}

/// `upload #7 (cancelled after 1.2s) {"user":"ada"}`
impl fmt::Display for FinishedTask {
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
    /// Those of the active ones that wait for their turn.
    pub queued: u64,
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
    /// Tasks that ended [`Evicted`](TaskOutcome::Evicted).
    pub evicted: u64,
    /// Attempts beyond a task's first.
    pub retries: u64,
    /// Spawns that were refused with a [`SpawnError`](crate::task::SpawnError); they are not in `spawned`.
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
            TaskOutcome::Evicted => &mut self.evicted,
        } += 1;
    }

    /// Each outcome with its count.
    pub(super) fn outcomes(&self) -> [(TaskOutcome, u64); 7] {
        [
            (TaskOutcome::Completed, self.completed),
            (TaskOutcome::Failed, self.failed),
            (TaskOutcome::Panicked, self.panicked),
            (TaskOutcome::TimedOut, self.timed_out),
            (TaskOutcome::Cancelled, self.cancelled),
            (TaskOutcome::Aborted, self.aborted),
            (TaskOutcome::Evicted, self.evicted),
        ]
    }
}

/// `12 spawned: 3 active, 8 completed, 1 timed out; 2 retries; 1 rejected`, without what there was nothing of.
impl fmt::Display for TaskStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} spawned: {} active", self.spawned, self.active)?;
        if self.queued > 0 {
            write!(f, " ({} queued)", self.queued)?;
        }
        for (outcome, count) in self.outcomes() {
            if count > 0 {
                write!(f, ", {count} {outcome}")?;
            }
        }
        match self.retries {
            0 => {}
            1 => f.write_str("; 1 retry")?,
            retries => write!(f, "; {retries} retries")?,
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

//! [`TaskId`], [`TaskOrigin`] and [`TaskProgress`]: the identity, the spawner and the progress of a task.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct};

use super::{engine::run_tasks::RunTasks, outcome::TaskOutcome};
use crate::run_id::RunId;

/// Identifies a task within its manager. Ids count up in the order of spawning and are never reused.
///
/// A text such as `17` or `#17`, from a log line or a URL, parses as an id. A manager without a task of that id
/// [cancels](crate::BackgroundTaskManager::cancel) nothing.
///
/// ```
/// use agentflow::task::TaskId;
///
/// assert_eq!("#17".parse(), Ok(TaskId::from(17)));
/// assert_eq!(TaskId::from(17).to_string(), "17");
/// assert_eq!(
///     "upload".parse::<TaskId>().unwrap_err().to_string(),
///     "`upload` is not a task id: it must be a number, such as `17` or `#17`",
/// );
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(pub(super) u64);

impl TaskId {
    /// Returns the id as a number, starting at 1.
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

impl From<u64> for TaskId {
    fn from(id: u64) -> Self {
        Self(id)
    }
}

/// The error for a text that is not a task id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a task id: it must be a number, such as `17` or `#17`")]
pub struct InvalidTaskId(String);

impl FromStr for TaskId {
    type Err = InvalidTaskId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix('#').unwrap_or(text);
        // `u64` also parses a sign, which no id is written with.
        let id = digits.parse().ok().filter(|_| !digits.starts_with('+'));
        id.map(Self).ok_or_else(|| InvalidTaskId(text.to_owned()))
    }
}

/// The run and the node that spawned a task. In JSON an object of `run` and `node`.
#[derive(Clone)]
pub struct TaskOrigin {
    run: RunId,
    node: Arc<str>,
    watch: Option<Arc<dyn Watch>>,
    tasks: Arc<RunTasks>,
}

/// Receives the starts, ends and progress of one run's tasks, on the thread of the fact: it must be quick and never wait.
pub(crate) trait Watch: fmt::Debug + Send + Sync {
    fn started(&self, node: &str, task: &str, id: TaskId);
    fn ended(&self, node: &str, task: &str, id: TaskId, outcome: TaskOutcome);
    /// `is_live` returns `false` from before `ended` is called.
    fn progressed(&self, node: &str, task: &str, id: TaskId, progress: &TaskProgress, is_live: &dyn Fn() -> bool);
}

impl TaskOrigin {
    pub(super) fn new(run: RunId, node: Arc<str>, watch: Option<Arc<dyn Watch>>, tasks: Arc<RunTasks>) -> Self {
        Self { run, node, watch, tasks }
    }

    /// Returns the run's own list of its tasks.
    pub(super) fn run_tasks(&self) -> &RunTasks {
        &self.tasks
    }

    /// Reports to the run that a task was spawned.
    pub(super) fn report_start(&self, task: &str, id: TaskId) {
        if let Some(watch) = &self.watch {
            watch.started(&self.node, task, id);
        }
    }

    /// Reports to the run that a task ended.
    pub(super) fn report_end(&self, task: &str, id: TaskId, outcome: TaskOutcome) {
        if let Some(watch) = &self.watch {
            watch.ended(&self.node, task, id, outcome);
        }
    }

    /// Reports to the run how far a task is.
    pub(super) fn report_progress(&self, task: &str, id: TaskId, progress: &TaskProgress, is_live: &dyn Fn() -> bool) {
        if let Some(watch) = &self.watch {
            watch.progressed(&self.node, task, id, progress, is_live);
        }
    }

    /// Returns the run.
    #[must_use]
    pub fn run(&self) -> RunId {
        self.run
    }

    /// Returns the name of the node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }
}

impl Serialize for TaskOrigin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut origin = serializer.serialize_struct("TaskOrigin", 2)?;
        origin.serialize_field("run", &self.run)?;
        origin.serialize_field("node", &*self.node)?;
        origin.end()
    }
}

impl fmt::Debug for TaskOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskOrigin").field("run", &self.run).field("node", &self.node).finish_non_exhaustive()
    }
}

/// Compares only the run and the node: the run's watcher and task list are not part of the origin's identity.
impl PartialEq for TaskOrigin {
    fn eq(&self, other: &Self) -> bool {
        (self.run, &self.node) == (other.run, &other.node)
    }
}

impl Eq for TaskOrigin {}

/// The progress that a task reports: see [`TaskContext::progress`](crate::TaskContext::progress).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TaskProgress {
    /// The fraction that is done, from 0 to 1.
    pub fraction: f64,
    /// A short description of the current activity.
    pub message: Box<str>,
}

impl TaskProgress {
    /// Creates a progress report; clamps `fraction` to 0..=1 and treats NaN as 0.
    pub(super) fn new(fraction: f64, message: String) -> Self {
        // Adding zero turns -0.0, which would print as `-0 %`, into 0.0.
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

//! [`TaskId`], [`TaskOrigin`] and [`TaskProgress`]: the identity, the spawner and the progress of a task.

use std::{fmt, sync::Arc};

use super::{engine::run_tasks::RunTasks, outcome::TaskOutcome};
use crate::run_id::RunId;

/// Identifies a task within its manager. Ids count up in the order of spawning and are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

/// The run and the node that spawned a task.
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
#[derive(Clone, Debug, PartialEq)]
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

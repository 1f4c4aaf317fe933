//! [`TaskOrigin`]: the run and the node that spawned a task.

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer, ser::SerializeStruct};

use super::{
    engine::run_tasks::RunTasks, id::TaskId, observer::TaskObserver, outcome::TaskOutcome, progress::TaskProgress,
};
use crate::run_id::RunId;

/// The run and the node that spawned a task. In JSON an object of `run` and `node`.
#[derive(Clone)]
pub struct TaskOrigin {
    run: RunId,
    node: Arc<str>,
    observer: Option<Arc<dyn TaskObserver>>,
    tasks: Arc<RunTasks>,
}

impl TaskOrigin {
    pub(super) fn new(
        run: RunId,
        node: Arc<str>,
        observer: Option<Arc<dyn TaskObserver>>,
        tasks: Arc<RunTasks>,
    ) -> Self {
        Self { run, node, observer, tasks }
    }

    /// Returns the run's own list of its tasks.
    pub(super) fn run_tasks(&self) -> &RunTasks {
        &self.tasks
    }

    /// Reports to the run that a task was spawned.
    pub(super) fn report_start(&self, task: &str, id: TaskId) {
        if let Some(observer) = &self.observer {
            observer.started(&self.node, task, id);
        }
    }

    /// Reports to the run that a task ended.
    pub(super) fn report_end(&self, task: &str, id: TaskId, outcome: TaskOutcome) {
        if let Some(observer) = &self.observer {
            observer.ended(&self.node, task, id, outcome);
        }
    }

    /// Reports to the run how far a task is.
    pub(super) fn report_progress(&self, task: &str, id: TaskId, progress: &TaskProgress, is_live: &dyn Fn() -> bool) {
        if let Some(observer) = &self.observer {
            observer.progressed(&self.node, task, id, progress, is_live);
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

/// Compares only the run and the node: the run's observer and task list are not part of the origin's identity.
impl PartialEq for TaskOrigin {
    fn eq(&self, other: &Self) -> bool {
        (self.run, &self.node) == (other.run, &other.node)
    }
}

impl Eq for TaskOrigin {}

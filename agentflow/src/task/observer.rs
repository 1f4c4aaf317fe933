//! [`TaskObserver`]: a run's view of the tasks that its nodes spawn.

use std::fmt;

use super::{id::TaskId, outcome::TaskOutcome, progress::TaskProgress};

/// Receives the starts, ends and progress of one run's tasks, on the thread on which they happen: it must be quick and
/// never wait.
pub(crate) trait TaskObserver: fmt::Debug + Send + Sync {
    fn started(&self, node: &str, task: &str, id: TaskId);
    fn ended(&self, node: &str, task: &str, id: TaskId, outcome: TaskOutcome);
    /// `is_live` returns `false` from before `ended` is called.
    fn progressed(&self, node: &str, task: &str, id: TaskId, progress: &TaskProgress, is_live: &dyn Fn() -> bool);
}

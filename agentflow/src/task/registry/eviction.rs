//! [`Evictable`]: the tasks that may be dropped to make room for another one.

use std::collections::BTreeSet;

use super::super::id::TaskId;

/// The tasks that may be dropped for another one, oldest first.
#[derive(Debug, Default)]
pub(super) struct Evictable {
    /// The delayed and the queued ones, which go first.
    queued: BTreeSet<TaskId>,
    running: BTreeSet<TaskId>,
}

impl Evictable {
    pub(super) fn insert(&mut self, task: TaskId, may_run: bool) {
        let tasks = if may_run { &mut self.running } else { &mut self.queued };
        tasks.insert(task);
    }

    /// Returns the next task to evict, other than those in `except`, which is sorted.
    pub(super) fn next(&self, except: &[TaskId]) -> Option<TaskId> {
        self.queued.iter().chain(&self.running).find(|task| except.binary_search(task).is_err()).copied()
    }

    pub(super) fn remove(&mut self, task: TaskId) {
        let _ = self.queued.remove(&task) || self.running.remove(&task);
    }

    /// Moves a task from the queued to the running ones.
    pub(super) fn begins(&mut self, task: TaskId) {
        if self.queued.remove(&task) {
            self.running.insert(task);
        }
    }
}

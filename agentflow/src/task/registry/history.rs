//! [`History`]: the tasks that ended last.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use super::super::{engine::task::TaskRecord, info::FinishedTask, outcome::TaskOutcome};

/// The number of names whose histories can be full at once: the history of all names holds this many times that of one.
const FULL_NAMES: usize = 16;

/// The tasks that ended last, of each name, failures longest.
///
/// Where there are too many, the oldest success goes first, and the oldest failure if there is no success but the
/// newest task. That one always stays: a history of failures would otherwise never show that the task succeeds again.
#[derive(Debug)]
pub(crate) struct History {
    /// The number of tasks that a name may have.
    per_name: usize,
    /// The number of the next task.
    next: u64,
    /// The tasks of all names, by the order of their ends.
    tasks: BySuccess<BTreeMap<u64, Arc<TaskRecord>>>,
    /// The numbers of the tasks of each name that has any, in the same order.
    names: HashMap<Cow<'static, str>, BySuccess<VecDeque<u64>>>,
}

#[derive(Debug, Default)]
struct BySuccess<T> {
    successes: T,
    failures: T,
}

impl<T> BySuccess<T> {
    fn of(&mut self, is_success: bool) -> &mut T {
        if is_success { &mut self.successes } else { &mut self.failures }
    }
}

/// Returns whether a success goes next, given the oldest success, if there is one, and the number of the newest task.
fn success_goes(oldest_success: Option<u64>, newest: u64) -> bool {
    oldest_success.is_some_and(|oldest| oldest != newest)
}

impl History {
    pub(super) fn new(per_name: usize) -> Self {
        Self { per_name, next: 0, tasks: BySuccess::default(), names: HashMap::new() }
    }

    /// Adds a task that has ended, and returns the one that is forgotten for it. The caller drops that one outside of
    /// the registry's lock, because it may hold user data.
    #[must_use]
    pub(super) fn add(&mut self, task: Arc<TaskRecord>, outcome: TaskOutcome) -> Option<Arc<TaskRecord>> {
        if self.per_name == 0 {
            return Some(task);
        }
        let newest = self.next;
        self.next += 1;
        let is_success = outcome == TaskOutcome::Completed;
        let name = &task.spec.name;
        let numbers = match self.names.get_mut(&**name) {
            Some(numbers) => numbers,
            None => self.names.entry(name.clone()).or_default(),
        };
        numbers.of(is_success).push_back(newest);
        let forgotten = if numbers.successes.len() + numbers.failures.len() > self.per_name {
            let success_goes = success_goes(numbers.successes.front().copied(), newest);
            let number = numbers.of(success_goes).pop_front();
            number.and_then(|number| self.tasks.of(success_goes).remove(&number))
        } else {
            None
        };
        self.tasks.of(is_success).insert(newest, task);
        let max = self.per_name.saturating_mul(FULL_NAMES);
        if self.tasks.successes.len() + self.tasks.failures.len() <= max {
            return forgotten;
        }
        // The name was not full, or else the total would not have grown.
        let success_goes = success_goes(self.tasks.successes.keys().next().copied(), newest);
        let (_, oldest) = self.tasks.of(success_goes).pop_first()?;
        if let Some(numbers) = self.names.get_mut(&*oldest.spec.name) {
            // The oldest task of all names is the oldest one of its own name.
            numbers.of(success_goes).pop_front();
            if numbers.successes.is_empty() && numbers.failures.is_empty() {
                self.names.remove(&*oldest.spec.name);
            }
        }
        Some(oldest)
    }

    /// Returns the names of the tasks.
    pub(super) fn names(&self) -> impl Iterator<Item = &Cow<'static, str>> {
        self.names.keys()
    }

    /// Returns the tasks, by the order of their ends.
    pub(super) fn tasks(&self) -> Vec<FinishedTask> {
        let mut tasks: Vec<_> = self.tasks.successes.iter().chain(&self.tasks.failures).collect();
        tasks.sort_unstable_by_key(|(number, _)| **number);
        tasks.into_iter().filter_map(|(_, task)| FinishedTask::of(task)).collect()
    }
}

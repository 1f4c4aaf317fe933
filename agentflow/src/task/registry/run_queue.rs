//! [`RunQueue`]: the admitted tasks that may run, and those that are queued.
//!
//! A delayed task comes here when its delay is over; before, it is only counted as one of its key. A task passes up to
//! two gates. First it waits until it is the only one with its key. Then it waits for room: for its
//! name, if the name has a limit, and for one more running task at all. A task that is blocked on its key therefore
//! takes up no room. The oldest task goes first. Without limits and keys the queue costs nothing.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound::{Excluded, Unbounded},
};

use super::super::{
    engine::task::{TaskKey, TaskRecord},
    id::TaskId,
};

#[derive(Debug)]
pub(super) struct RunQueue {
    max_running: Option<usize>,
    running: usize,
    /// The first lane is for all names that have no limit of their own.
    lanes: Vec<Lane>,
    names: HashMap<Cow<'static, str>, usize>,
    keys: HashMap<TaskKey, Keyed>,
    waiting: usize,
}

/// The tasks of one name that has a limit, or of all names that have none.
#[derive(Debug, Default)]
struct Lane {
    max_running: Option<usize>,
    /// Set if there was a task of the lane's name.
    is_used: bool,
    running: usize,
    waiting: BTreeSet<TaskId>,
}

/// The tasks of one key.
#[derive(Debug, Default)]
struct Keyed {
    /// The task that has passed the key's gate; without one, no task waits.
    first: Option<TaskId>,
    /// The tasks that wait at the gate, with their lanes.
    waiting: BTreeMap<TaskId, usize>,
    /// The tasks that wait for their delay to end. They hold up none of the others.
    delayed: BTreeSet<TaskId>,
    /// The youngest task that was replaced, as all older ones were: a burst of replacements visits each task once.
    replaced: Option<TaskId>,
}

/// The properties of a task by which it is queued. They are the same when it leaves as when it entered.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueEntry<'a> {
    task: TaskId,
    name: &'a str,
    key: Option<&'a TaskKey>,
}

impl<'a> QueueEntry<'a> {
    pub(super) fn of(task: &'a TaskRecord) -> Self {
        Self { task: task.id, name: &task.spec.name, key: task.spec.scoped_key() }
    }
}

impl RunQueue {
    /// Creates a queue with a limit for all tasks, and with limits for some names.
    pub(super) fn new(max_running: Option<usize>, max_running_named: &[(Cow<'static, str>, usize)]) -> Self {
        let mut lanes = vec![Lane::default()];
        let mut names = HashMap::new();
        for (name, max_running) in max_running_named {
            names.insert(name.clone(), lanes.len());
            lanes.push(Lane { max_running: Some(*max_running), ..Lane::default() });
        }
        Self { max_running, running: 0, lanes, names, keys: HashMap::new(), waiting: 0 }
    }

    /// Returns the names with a limit of which there was no task, each of them once.
    pub(super) fn take_unused_names(&mut self) -> Vec<Cow<'static, str>> {
        let lanes = &mut self.lanes;
        let mut is_new = |lane: usize| !std::mem::replace(&mut lanes[lane].is_used, true);
        self.names.iter().filter(|(_, lane)| is_new(**lane)).map(|(name, _)| name.clone()).collect()
    }

    /// Returns the number of queued tasks.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Returns whether a task with this key lives.
    pub(super) fn has_key(&self, key: &TaskKey) -> bool {
        self.keys.contains_key(key)
    }

    /// Returns the tasks with this key, oldest first.
    pub(super) fn with_key(&self, key: &TaskKey) -> Vec<TaskId> {
        self.keys.get(key).map(|keyed| keyed.tasks(None)).unwrap_or_default()
    }

    /// Returns the task that has passed this key's gate, and the number of the others: they can't run before it has ended.
    pub(super) fn holder(&self, key: &TaskKey) -> Option<(TaskId, usize)> {
        let keyed = self.keys.get(key)?;
        Some((keyed.first?, keyed.waiting.len() + keyed.delayed.len()))
    }

    /// Returns the tasks with this key that were not replaced yet, oldest first.
    pub(super) fn unreplaced(&self, key: &TaskKey) -> Vec<TaskId> {
        self.keys.get(key).map(|keyed| keyed.tasks(keyed.replaced)).unwrap_or_default()
    }

    /// Marks all present tasks with this key as replaced.
    pub(super) fn mark_replaced(&mut self, key: &TaskKey) {
        if let Some(keyed) = self.keys.get_mut(key) {
            let waiting = keyed.waiting.last_key_value().map(|(task, _)| *task);
            keyed.replaced = keyed.first.max(waiting).max(keyed.delayed.last().copied());
        }
    }

    /// Adds a task; returns whether it may run at once.
    pub(super) fn enter(&mut self, entry: QueueEntry<'_>) -> bool {
        if !self.has_limits() && entry.key.is_none() {
            return true;
        }
        let lane = self.lane(entry.name);
        self.lanes[lane].is_used = true;
        if let Some(key) = entry.key {
            match self.keys.get_mut(key) {
                Some(keyed) if keyed.first.is_some() => {
                    keyed.waiting.insert(entry.task, lane);
                    self.waiting += 1;
                    return false;
                }
                Some(keyed) => keyed.first = Some(entry.task),
                None => drop(self.keys.insert(key.clone(), Keyed { first: Some(entry.task), ..Keyed::default() })),
            }
        }
        self.run_or_queue(entry.task, lane)
    }

    /// Adds a task that waits for its delay to end.
    pub(super) fn enter_delayed(&mut self, entry: QueueEntry<'_>) {
        let lane = self.lane(entry.name);
        self.lanes[lane].is_used = true;
        if let Some(key) = entry.key {
            self.keys.entry(key.clone()).or_default().delayed.insert(entry.task);
        }
    }

    /// Queues a task whose delay is over; returns whether it may run at once.
    pub(super) fn end_delay(&mut self, entry: QueueEntry<'_>) -> bool {
        if let Some(keyed) = entry.key.and_then(|key| self.keys.get_mut(key)) {
            keyed.delayed.remove(&entry.task);
        }
        self.enter(entry)
    }

    /// Removes a task; returns those that may run now.
    pub(super) fn leave(&mut self, entry: QueueEntry<'_>, was_running: bool) -> Vec<TaskId> {
        if !self.has_limits() && entry.key.is_none() {
            return Vec::new();
        }
        let lane = self.lane(entry.name);
        if was_running {
            self.running -= 1;
            self.lanes[lane].running -= 1;
        } else if self.lanes[lane].waiting.remove(&entry.task) {
            self.waiting -= 1;
        }
        if let Some(key) = entry.key
            && let Some(keyed) = self.keys.get_mut(key)
        {
            if keyed.first != Some(entry.task) {
                if keyed.waiting.remove(&entry.task).is_some() {
                    self.waiting -= 1;
                }
                keyed.delayed.remove(&entry.task);
            } else if let Some((next, lane)) = keyed.waiting.pop_first() {
                keyed.first = Some(next);
                self.lanes[lane].waiting.insert(next);
            } else {
                keyed.first = None;
            }
            if keyed.first.is_none() && keyed.delayed.is_empty() {
                self.keys.remove(key);
            }
        }
        std::iter::from_fn(|| self.start_next()).collect()
    }

    fn has_limits(&self) -> bool {
        self.max_running.is_some() || self.lanes.len() > 1
    }

    fn lane(&self, name: &str) -> usize {
        if self.names.is_empty() { 0 } else { self.names.get(name).copied().unwrap_or(0) }
    }

    fn has_room(&self, lane: usize) -> bool {
        let lane = &self.lanes[lane];
        self.max_running.is_none_or(|max| self.running < max) && lane.max_running.is_none_or(|max| lane.running < max)
    }

    /// Counts a task that has passed its key's gate as running if there is room, or else queues it; returns whether it
    /// may run.
    fn run_or_queue(&mut self, task: TaskId, lane: usize) -> bool {
        let may_run = self.has_room(lane);
        if may_run {
            self.running += 1;
            self.lanes[lane].running += 1;
        } else {
            self.waiting += 1;
            self.lanes[lane].waiting.insert(task);
        }
        may_run
    }

    /// Counts the oldest queued task for which there is room as running, and returns it.
    fn start_next(&mut self) -> Option<TaskId> {
        let firsts = self.lanes.iter().enumerate().filter_map(|(index, lane)| Some((*lane.waiting.first()?, index)));
        let (task, lane) = firsts.filter(|(_, lane)| self.has_room(*lane)).min()?;
        self.lanes[lane].waiting.remove(&task);
        self.waiting -= 1;
        self.run_or_queue(task, lane).then_some(task)
    }
}

impl Keyed {
    /// Returns the tasks that are younger than this one, oldest first.
    fn tasks(&self, than: Option<TaskId>) -> Vec<TaskId> {
        let younger = (than.map_or(Unbounded, Excluded), Unbounded);
        let first = self.first.filter(|first| than < Some(*first));
        let waiting = self.waiting.range(younger).map(|(task, _)| *task);
        let mut tasks: Vec<_> = first.into_iter().chain(waiting).chain(self.delayed.range(younger).copied()).collect();
        tasks.sort_unstable();
        tasks
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::task::TaskId;

    const NAMES: [&str; 3] = ["free", "one at a time", "two at a time"];

    fn task(number: u64) -> TaskId {
        TaskId(number)
    }

    struct Queued {
        number: u64,
        name: usize,
        key: Option<TaskKey>,
        is_delayed: bool,
        /// It is the one of its key that may run.
        is_first: bool,
        runs: bool,
    }

    impl Queued {
        fn entry(&self) -> QueueEntry<'_> {
            QueueEntry { task: task(self.number), name: NAMES[self.name], key: self.key.as_ref() }
        }
    }

    /// Starts the tasks that may run, oldest first, by checking for each task what blocks it.
    fn start(tasks: &mut [Queued]) -> Vec<TaskId> {
        let mut started = Vec::new();
        for index in 0..tasks.len() {
            let queued = &tasks[index];
            let is_free = queued.key.is_none() || tasks.iter().all(|other| !other.is_first || other.key != queued.key);
            tasks[index].is_first |= !queued.is_delayed && is_free;
        }
        for index in 0..tasks.len() {
            let queued = &tasks[index];
            let running = |name: Option<usize>| {
                tasks.iter().filter(|task| task.runs && name.is_none_or(|name| task.name == name)).count()
            };
            let has_room = running(None) < 4 && (queued.name == 0 || running(Some(queued.name)) < queued.name);
            if !queued.runs && queued.is_first && has_room {
                started.push(task(queued.number));
                tasks[index].runs = true;
            }
        }
        started
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_oldest_task_that_may_run_runs(
            steps in prop::collection::vec((0..3_usize, prop::option::of(0..2_usize), any::<usize>(), 0..8_u8), 1..60)
        ) {
            let limits = [(Cow::Borrowed(NAMES[1]), 1), (Cow::Borrowed(NAMES[2]), 2)];
            let keys = ["a", "b"].map(|scope| TaskKey { scope: Some(scope.into()), key: "k".into() });
            let mut queue = RunQueue::new(Some(4), &limits);
            let mut tasks: Vec<Queued> = Vec::new();
            for (number, (name, key, which, step)) in (1..).zip(steps) {
                if step < 2 && !tasks.is_empty() {
                    let left = tasks.remove(which % tasks.len());
                    prop_assert_eq!(queue.leave(left.entry(), left.runs), start(&mut tasks));
                } else if step == 2 && tasks.iter().any(|task| task.is_delayed) {
                    let delayed = tasks.iter().filter(|task| task.is_delayed).count();
                    let due = tasks.iter_mut().filter(|task| task.is_delayed).nth(which % delayed);
                    let may_run = due.is_some_and(|due| {
                        due.is_delayed = false;
                        queue.end_delay(due.entry())
                    });
                    prop_assert_eq!(may_run, !start(&mut tasks).is_empty());
                } else {
                    let (key, is_delayed) = (key.map(|key| keys[key].clone()), step > 5);
                    tasks.push(Queued { number, name, key, is_delayed, is_first: false, runs: false });
                    let entry = tasks[tasks.len() - 1].entry();
                    let may_run = if is_delayed {
                        queue.enter_delayed(entry);
                        false
                    } else {
                        queue.enter(entry)
                    };
                    prop_assert_eq!(may_run, !start(&mut tasks).is_empty());
                }
                prop_assert_eq!(queue.waiting(), tasks.iter().filter(|task| !task.runs && !task.is_delayed).count());
            }
            while !tasks.is_empty() {
                let left = tasks.remove(0);
                queue.leave(left.entry(), left.runs);
                start(&mut tasks);
            }
            prop_assert!(queue.keys.is_empty() && queue.running == 0 && queue.waiting == 0);
        }
    }
}

//! [`Queue`]: which of the admitted tasks may run, and which wait for their turn.
//!
//! A task passes up to two gates. Of the tasks with one key only the first is let through, until it ends. Then there
//! must be room: for its name, where the name has a limit, and for one more task at all. Whoever waited longest goes
//! first. Without limits and keys nothing here costs anything.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
};

use super::record::TaskRef;

#[derive(Debug)]
pub(super) struct Queue {
    max_running: Option<usize>,
    running: usize,
    /// The first is for all names that have no limit of their own.
    lanes: Vec<Lane>,
    names: HashMap<Cow<'static, str>, usize>,
    keys: HashMap<Arc<str>, Keyed>,
    waiting: usize,
}

/// The tasks of one name that has a limit, or those of all other names.
#[derive(Debug, Default)]
struct Lane {
    max_running: Option<usize>,
    running: usize,
    waiting: BTreeSet<TaskRef>,
}

/// The tasks of one key.
#[derive(Debug)]
struct Keyed {
    /// The one that is past the key's gate.
    first: TaskRef,
    /// The others, with their lanes.
    waiting: BTreeMap<TaskRef, usize>,
    /// Up to this one all were told to make way: a burst of replacements looks at each once.
    replaced: Option<TaskRef>,
}

/// Where a task stands in the queue; it says the same when it leaves as when it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) task: TaskRef,
    pub(super) name: &'a str,
    pub(super) key: Option<&'a Arc<str>>,
}

impl Queue {
    /// No more than `max_running` at once, and of some names no more than these.
    pub(super) fn new(max_running: Option<usize>, of_names: &[(Cow<'static, str>, usize)]) -> Self {
        let mut lanes = vec![Lane::default()];
        let mut names = HashMap::new();
        for (name, max_running) in of_names {
            names.insert(name.clone(), lanes.len());
            lanes.push(Lane { max_running: Some(*max_running), ..Lane::default() });
        }
        Self { max_running, running: 0, lanes, names, keys: HashMap::new(), waiting: 0 }
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether there is a task with this key.
    pub(super) fn has_key(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    /// The tasks with this key that were not replaced yet, oldest first.
    pub(super) fn unreplaced(&self, key: &str) -> Vec<TaskRef> {
        let Some(keyed) = self.keys.get(key) else {
            return Vec::new();
        };
        let first = Some(keyed.first).filter(|first| keyed.replaced < Some(*first));
        let waiting = keyed.waiting.range((keyed.replaced.map_or(Unbounded, Excluded), Unbounded));
        first.into_iter().chain(waiting.map(|(task, _)| *task)).collect()
    }

    /// Now they are replaced.
    pub(super) fn replace(&mut self, key: &str) {
        if let Some(keyed) = self.keys.get_mut(key) {
            keyed.replaced = Some(keyed.waiting.last_key_value().map_or(keyed.first, |(task, _)| *task));
        }
    }

    /// Lines the task up; says whether it may run at once.
    pub(super) fn enter(&mut self, place: Place<'_>) -> bool {
        if !self.has_limits() && place.key.is_none() {
            return true;
        }
        let lane = self.lane(place.name);
        if let Some(key) = place.key {
            if let Some(keyed) = self.keys.get_mut(key) {
                keyed.waiting.insert(place.task, lane);
                self.waiting += 1;
                return false;
            }
            self.keys.insert(Arc::clone(key), Keyed { first: place.task, waiting: BTreeMap::new(), replaced: None });
        }
        self.line_up(place.task, lane)
    }

    /// Takes the task out; gives those that may run now.
    pub(super) fn leave(&mut self, place: Place<'_>, was_running: bool) -> Vec<TaskRef> {
        if !self.has_limits() && place.key.is_none() {
            return Vec::new();
        }
        let lane = self.lane(place.name);
        if was_running {
            self.running -= 1;
            self.lanes[lane].running -= 1;
        } else if self.lanes[lane].waiting.remove(&place.task) {
            self.waiting -= 1;
        }
        if let Some(key) = place.key
            && let Some(keyed) = self.keys.get_mut(key)
        {
            if keyed.first != place.task {
                if keyed.waiting.remove(&place.task).is_some() {
                    self.waiting -= 1;
                }
            } else if let Some((next, lane)) = keyed.waiting.pop_first() {
                keyed.first = next;
                self.lanes[lane].waiting.insert(next);
            } else {
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

    /// The task is past its key's gate: it runs if there is room, or waits for it.
    fn line_up(&mut self, task: TaskRef, lane: usize) -> bool {
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

    /// Lets the one run that waits longest and for which there is room.
    fn start_next(&mut self) -> Option<TaskRef> {
        let firsts = self.lanes.iter().enumerate().filter_map(|(lane, line)| Some((*line.waiting.first()?, lane)));
        let (task, lane) = firsts.filter(|(_, lane)| self.has_room(*lane)).min()?;
        self.lanes[lane].waiting.remove(&task);
        self.waiting -= 1;
        self.line_up(task, lane).then_some(task)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::info::TaskId, *};

    const NAMES: [&str; 3] = ["free", "one at a time", "two at a time"];

    fn task(number: u64) -> TaskRef {
        TaskRef { id: TaskId(number), slot: 0 }
    }

    struct Line {
        number: u64,
        name: usize,
        key: Option<Arc<str>>,
        runs: bool,
    }

    impl Line {
        fn place(&self) -> Place<'_> {
            Place { task: task(self.number), name: NAMES[self.name], key: self.key.as_ref() }
        }
    }

    /// Lets those run that may, oldest first, by asking of each what stands in its way.
    fn start(lines: &mut [Line]) -> Vec<TaskRef> {
        let mut started = Vec::new();
        for index in 0..lines.len() {
            let (earlier, line) = (&lines[..index], &lines[index]);
            let running = |name: Option<usize>| {
                lines.iter().filter(|line| line.runs && name.is_none_or(|name| line.name == name)).count()
            };
            let is_first = line.key.is_none() || earlier.iter().all(|other| other.key != line.key);
            let has_room = running(None) < 4 && (line.name == 0 || running(Some(line.name)) < line.name);
            if !line.runs && is_first && has_room {
                started.push(task(line.number));
                lines[index].runs = true;
            }
        }
        started
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whoever_waited_longest_and_may_run_runs(
            steps in prop::collection::vec((0..3_usize, prop::option::of(0..2_usize), any::<usize>(), 0..5_u8), 1..60)
        ) {
            let limits = [(Cow::Borrowed(NAMES[1]), 1), (Cow::Borrowed(NAMES[2]), 2)];
            let keys: [Arc<str>; 2] = ["a".into(), "b".into()];
            let mut queue = Queue::new(Some(4), &limits);
            let mut lines: Vec<Line> = Vec::new();
            for (number, (name, key, which, step)) in (1..).zip(steps) {
                if step < 2 && !lines.is_empty() {
                    let left = lines.remove(which % lines.len());
                    prop_assert_eq!(queue.leave(left.place(), left.runs), start(&mut lines));
                } else {
                    lines.push(Line { number, name, key: key.map(|key| Arc::clone(&keys[key])), runs: false });
                    let may_run = queue.enter(lines[lines.len() - 1].place());
                    prop_assert_eq!(may_run, !start(&mut lines).is_empty());
                }
                prop_assert_eq!(queue.waiting(), lines.iter().filter(|line| !line.runs).count());
            }
            while !lines.is_empty() {
                let left = lines.remove(0);
                queue.leave(left.place(), left.runs);
                start(&mut lines);
            }
            prop_assert!(queue.keys.is_empty() && queue.running == 0 && queue.waiting == 0);
        }
    }
}

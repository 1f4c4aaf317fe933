//! [`LiveTasks`]: the live tasks of a manager, by id, by name and by run.

use std::{
    borrow::{Borrow, Cow},
    collections::{BTreeSet, HashMap, VecDeque},
    hash::Hash,
    sync::Arc,
};

use super::super::{engine::task::TaskRecord, filter::Selection, id::TaskId};
use crate::run_id::RunId;

/// The number of holes among the live tasks that are never worth closing.
const MIN_HOLES: usize = 64;

/// The live tasks of a manager.
///
/// Adding and removing a task takes constant time. The tasks of a name or of a run are found through an index, which is
/// built when it is first asked for: a program that never asks pays nothing for it.
#[derive(Debug, Default)]
pub(super) struct LiveTasks {
    /// In the order of their ids, which only grow. A task that is removed leaves a hole, so that the others keep their
    /// places; the holes are closed when they are more than half.
    places: VecDeque<(TaskId, Option<Arc<TaskRecord>>)>,
    len: usize,
    by_name: Option<Index<Cow<'static, str>>>,
    by_run: Option<Index<RunId>>,
}

/// Some of the live tasks, oldest first.
pub(super) type Selected<'a> = Box<dyn Iterator<Item = &'a Arc<TaskRecord>> + 'a>;

/// The live tasks by a property that many of them may share.
#[derive(Debug)]
struct Index<K>(HashMap<K, BTreeSet<TaskId>>);

impl LiveTasks {
    /// Adds a task, which is younger than all that were added before.
    pub(super) fn insert(&mut self, task: Arc<TaskRecord>) {
        if let Some(index) = &mut self.by_name {
            index.insert(&task.spec.name, task.id);
        }
        if let Some((index, run)) = self.by_run.as_mut().zip(task.run()) {
            index.insert(&run, task.id);
        }
        self.len += 1;
        self.places.push_back((task.id, Some(task)));
    }

    pub(super) fn remove(&mut self, id: TaskId) -> Option<Arc<TaskRecord>> {
        let place = self.place(id)?;
        let task = self.places[place].1.take()?;
        self.len -= 1;
        while self.places.front().is_some_and(|(_, task)| task.is_none()) {
            self.places.pop_front();
        }
        if self.places.len() > 2 * self.len + MIN_HOLES {
            self.places.retain(|(_, task)| task.is_some());
        }
        if let Some(index) = &mut self.by_name {
            index.remove(&*task.spec.name, id);
        }
        if let Some((index, run)) = self.by_run.as_mut().zip(task.run()) {
            index.remove(&run, id);
        }
        Some(task)
    }

    pub(super) fn get(&self, id: TaskId) -> Option<&Arc<TaskRecord>> {
        self.places[self.place(id)?].1.as_ref()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns the tasks, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<TaskRecord>> {
        self.places.iter().filter_map(|(_, task)| task.as_ref())
    }

    /// Builds the index that this selection needs, if it is not there yet.
    pub(super) fn index_for(&mut self, selection: &Selection) {
        match selection {
            Selection::Named(_) if self.by_name.is_none() => {
                let mut index = Index(HashMap::new());
                self.iter().for_each(|task| index.insert(&task.spec.name, task.id));
                self.by_name = Some(index);
            }
            Selection::OfRun(_) if self.by_run.is_none() => {
                let mut index = Index(HashMap::new());
                self.iter().for_each(|task| task.run().into_iter().for_each(|run| index.insert(&run, task.id)));
                self.by_run = Some(index);
            }
            _ => {}
        }
    }

    /// Returns the selected tasks, oldest first: at the cost of their number, if there is an index or none is needed.
    pub(super) fn select<'a>(&'a self, selection: &'a Selection) -> Selected<'a> {
        match (selection, &self.by_name, &self.by_run) {
            (Selection::All, ..) => Box::new(self.iter()),
            (Selection::Ids(ids), ..) => Box::new(ids.iter().filter_map(|id| self.get(*id))),
            (Selection::Named(name), Some(index), _) => Box::new(index.get(&**name).filter_map(|task| self.get(task))),
            (Selection::OfRun(run), _, Some(index)) => Box::new(index.get(run).filter_map(|task| self.get(task))),
            _ => Box::new(self.iter().filter(|task| selection.matches(task))),
        }
    }

    /// Returns the place of a task, if it has one.
    fn place(&self, id: TaskId) -> Option<usize> {
        // The ids have no gaps but those that closed holes have left, so a task is mostly as far from the first one, or
        // from the last one, as its id is.
        let last = self.places.len().checked_sub(1)?;
        let distance = |from: u64, to: u64| to.checked_sub(from).and_then(|distance| usize::try_from(distance).ok());
        let from_first = distance(self.places[0].0.get(), id.get())?;
        let to_last = distance(id.get(), self.places[last].0.get())?;
        [from_first, last.saturating_sub(to_last)]
            .into_iter()
            .find(|place| self.places.get(*place).is_some_and(|(task, _)| *task == id))
            .or_else(|| self.places.binary_search_by_key(&id, |(task, _)| *task).ok())
    }
}

impl<K: Clone + Eq + Hash> Index<K> {
    fn insert(&mut self, key: &K, task: TaskId) {
        match self.0.get_mut(key) {
            Some(tasks) => {
                tasks.insert(task);
            }
            None => {
                self.0.insert(key.clone(), BTreeSet::from([task]));
            }
        }
    }

    fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q, task: TaskId)
    where
        K: Borrow<Q>,
    {
        if let Some(tasks) = self.0.get_mut(key) {
            tasks.remove(&task);
            if tasks.is_empty() {
                self.0.remove(key);
            }
        }
    }

    fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> impl Iterator<Item = TaskId> + use<'_, K, Q>
    where
        K: Borrow<Q>,
    {
        self.0.get(key).into_iter().flatten().copied()
    }
}

#[cfg(all(test, not(agentflow_model)))]
mod tests {
    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::*;
    use crate::task::{RunTasks, TaskId, TaskOrigin, engine::task::TaskSpec};

    const NAMES: [&str; 3] = ["mail", "upload", "index"];

    fn record(id: u64, name: usize, run: Option<RunId>) -> Arc<TaskRecord> {
        let spec =
            TaskSpec { name: NAMES[name].into(), timeout: None, context: Box::default(), token: None, extras: None };
        let origin = run.map(|run| Arc::new(TaskOrigin::new(run, "NODE".into(), None, Arc::<RunTasks>::default())));
        let mut task = TaskRecord::new(spec, origin, Instant::now());
        task.id = TaskId(id);
        Arc::new(task)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_look_up_finds_what_a_scan_finds(
            steps in prop::collection::vec((0..5_u8, any::<prop::sample::Index>(), 0..3_usize, 0..3_usize), 1..600),
            growing in 0..4_u8,
            indexed_from in 0..300_usize,
        ) {
            let runs = [RunId::new(), RunId::new()];
            let (mut live, mut expected) = (LiveTasks::default(), Vec::<Arc<TaskRecord>>::new());
            for (number, (step, which, name, run)) in steps.into_iter().enumerate() {
                // Phases in which the number of tasks grows, and phases in which it shrinks and leaves holes.
                let grows = if (number / 150) % 2 == 0 { step > growing } else { step == 0 };
                if grows || expected.is_empty() {
                    let task = record(number as u64 + 1, name, runs.get(run).copied());
                    expected.push(Arc::clone(&task));
                    live.insert(task);
                } else {
                    let task = expected.remove(which.index(expected.len()));
                    prop_assert!(live.remove(task.id).is_some_and(|removed| Arc::ptr_eq(&removed, &task)));
                    prop_assert!(live.remove(task.id).is_none() && live.get(task.id).is_none());
                }
                prop_assert_eq!(live.len(), expected.len());
                prop_assert!(live.places.len() <= 2 * live.len() + MIN_HOLES);
                let ids = vec![TaskId(number as u64 / 2), TaskId(number as u64 + 1)];
                for selection in [
                    Selection::All,
                    Selection::Ids(ids),
                    Selection::Named(NAMES[name].into()),
                    Selection::OfRun(runs[run % 2]),
                ] {
                    if number > indexed_from {
                        live.index_for(&selection);
                    }
                    let found: Vec<_> = live.select(&selection).map(|task| task.id).collect();
                    let scanned = expected.iter().filter(|task| selection.matches(task));
                    prop_assert_eq!(found, scanned.map(|task| task.id).collect::<Vec<_>>());
                }
            }
            while let Some(task) = expected.pop() {
                prop_assert!(live.get(task.id).is_some() && live.remove(task.id).is_some());
            }
            prop_assert!(live.places.is_empty());
            prop_assert!(live.by_name.is_none_or(|index| index.0.is_empty()));
            prop_assert!(live.by_run.is_none_or(|index| index.0.is_empty()));
        }
    }
}

//! [`Data`]: all that a store in memory holds.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use serde_json::{Map, Value};

use super::{
    super::{
        id::{CheckpointId, ThreadId},
        thread::{ProgressRecord, Rest, ThreadRow, ThreadStatus},
        value::{Stored, Timestamp},
    },
    checkpoints::Checkpoints,
    clock::Clock,
    items::Items,
    owners::Owners,
    questions::Questions,
    run_table::{Run, Runs},
    schedules::Schedules,
    tasks::Tasks,
    trash::{Removed, Trash},
};
use crate::run_id::RunId;

/// All that a store in memory holds. One mutex guards it, and each operation is one call under it.
///
/// An operation checks all that may refuse it before it writes, so that a refused one changes nothing.
#[derive(Debug)]
pub(super) struct Data {
    pub(super) clock: Clock,
    pub(super) owners: Owners,
    pub(super) runs: Runs,
    pub(super) threads: BTreeMap<ThreadId, Thread>,
    pub(super) tasks: Tasks,
    pub(super) schedules: Schedules,
    pub(super) items: Items,
    pub(super) limits: Option<Limits>,
    pub(super) trash: Trash,
}

/// A thread.
#[derive(Debug)]
pub(super) struct Thread {
    pub(super) graph: Arc<str>,
    pub(super) head: Option<CheckpointId>,
    /// The state of the thread while no run is unfinished.
    pub(super) rest: Rest,
    pub(super) metadata: Map<String, Value>,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    pub(super) checkpoints: Checkpoints,
    pub(super) questions: Questions,
    pub(super) progress: Progress,
}

impl Thread {
    pub(super) fn new(graph: Arc<str>, now: Timestamp) -> Self {
        Self {
            graph,
            head: None,
            rest: Rest::Idle,
            metadata: Map::new(),
            created_at: now,
            updated_at: now,
            checkpoints: Checkpoints::default(),
            questions: Questions::default(),
            progress: Progress::default(),
        }
    }

    pub(super) fn row(&self, id: &ThreadId, is_busy: bool) -> ThreadRow {
        let mut row = ThreadRow::new(id.clone(), self.graph.clone(), self.created_at);
        row.head = self.head;
        row.status = if is_busy { ThreadStatus::Busy } else { self.rest.into() };
        row.metadata.clone_from(&self.metadata);
        row.updated_at = self.updated_at;
        row
    }
}

/// The progress of the step at the head of a thread, by path and step. Each record has the run that wrote it.
#[derive(Debug, Default)]
pub(super) struct Progress(BTreeMap<Place, (RunId, Stored)>);

/// The path and the step of a record.
type Place = (Arc<str>, Arc<str>);

impl Progress {
    pub(super) fn write(&mut self, records: &[ProgressRecord], run: RunId, trash: &mut Trash) {
        for ProgressRecord { step, path, record } in records {
            let former = self.0.insert((path.clone(), step.clone()), (run, record.clone()));
            trash.put(former.map(|(_, record)| record));
        }
    }

    pub(super) fn clear_step(&mut self, step: &str, trash: &mut Trash) {
        self.remove(|(_, of), _| &**of == step, trash);
    }

    pub(super) fn clear(&mut self, trash: &mut Trash) {
        self.remove(|_, _| true, trash);
    }

    pub(super) fn roll_back(&mut self, run: RunId, trash: &mut Trash) {
        self.remove(|_, by| by == run, trash);
    }

    /// Returns the records in the order of their paths.
    pub(super) fn records(&self) -> Vec<ProgressRecord> {
        let records = self.0.iter();
        records
            .map(|((path, step), (_, record))| ProgressRecord::new(step.clone(), path.clone(), record.clone()))
            .collect()
    }

    fn remove(&mut self, is_removed: impl Fn(&Place, RunId) -> bool, trash: &mut Trash) {
        let removed = self.0.extract_if(.., |key, (run, _)| is_removed(key, *run));
        trash.put(removed.map(|(_, (_, record))| record));
    }
}

impl Removed for Thread {
    fn move_into(self, trash: &mut Trash) {
        trash.put(self.checkpoints);
        trash.put(self.questions);
        trash.put(self.progress.0.into_values().map(|(_, record)| record));
    }
}

/// The limits of the default store, which nobody prunes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The greatest number of checkpoints of a thread, and of runs and questions of one that have ended.
    pub(super) of_thread: usize,
    pub(super) threads: usize,
    /// The number of threads beyond which the idle ones are looked for.
    pub(super) next_sweep: usize,
    /// True once the log says that threads have gone.
    pub(super) is_logged: bool,
}

impl Limits {
    pub(super) fn new(of_thread: usize, threads: usize) -> Self {
        Self { of_thread, threads, next_sweep: threads, is_logged: false }
    }
}

impl Data {
    pub(super) fn new(limits: Option<Limits>) -> Self {
        Self {
            clock: Clock::new(),
            owners: Owners::default(),
            runs: Runs::default(),
            threads: BTreeMap::new(),
            tasks: Tasks::default(),
            schedules: Schedules::default(),
            items: Items::default(),
            limits,
            trash: Trash::default(),
        }
    }

    /// Returns the row of a thread that is there.
    pub(super) fn thread_row(&self, id: &ThreadId, now: Timestamp) -> Option<ThreadRow> {
        Some(self.threads.get(id)?.row(id, self.runs.first_of(id, now).is_some()))
    }

    /// Returns whether an owner drives the run.
    pub(super) fn is_driven(&self, run: &Run, now: Timestamp) -> bool {
        let is_released = run.has_started() && !run.is_running();
        !is_released && self.owners.is_alive(run.row.owner, now)
    }

    /// Returns the checkpoints that a pruning must leave: the head, those with open questions, and those that an
    /// unfinished run began at, follows, or would be rolled back to.
    pub(super) fn needed_checkpoints(&self, id: &ThreadId) -> HashSet<CheckpointId> {
        let mut needed = HashSet::new();
        if let Some(thread) = self.threads.get(id) {
            needed.extend(thread.head);
            needed.extend(thread.questions.open().filter_map(|question| question.checkpoint));
        }
        for Run { row, .. } in self.runs.unfinished_of(id) {
            needed.extend([row.base, row.last_checkpoint, row.head_before].into_iter().flatten());
        }
        needed
    }

    /// Deletes a thread with its runs, checkpoints, questions and progress.
    pub(super) fn remove_thread(&mut self, id: &ThreadId) {
        let runs: Vec<RunId> = self.runs.of_thread(id).map(Run::id).collect();
        for run in runs {
            self.trash.put(self.runs.remove(run));
        }
        self.trash.put(self.threads.remove(id));
    }

    /// Removes what exceeds the limits of the default store, after a change of one thread.
    pub(super) fn enforce_limits(&mut self, changed: &ThreadId) {
        let Some(limits) = self.limits else { return };
        let needed = self.needed_checkpoints(changed);
        if let Some(thread) = self.threads.get_mut(changed) {
            self.trash.put(thread.checkpoints.limit(limits.of_thread, &needed));
            thread.questions.limit(limits.of_thread, &mut self.trash);
        }
        let ended: Vec<RunId> =
            self.runs.of_thread(changed).filter(|run| run.row.status.has_ended()).map(Run::id).collect();
        for run in &ended[..ended.len().saturating_sub(limits.of_thread)] {
            self.trash.put(self.runs.remove(*run));
        }
        if self.threads.len() > limits.next_sweep {
            self.remove_idle_threads(changed);
        }
    }

    /// Removes the threads that have been idle for longest, but for `changed` and those with an open question.
    ///
    /// It makes more room than is needed now, since it has to look at all threads.
    fn remove_idle_threads(&mut self, changed: &ThreadId) {
        let Some(limits) = &mut self.limits else { return };
        let room = limits.threads / 100;
        let mut idle: Vec<(Timestamp, ThreadId)> = self
            .threads
            .iter()
            .filter(|(id, thread)| {
                *id != changed
                    && thread.questions.open().next().is_none()
                    && self.runs.unfinished_of(id).next().is_none()
            })
            .map(|(id, thread)| (thread.updated_at, id.clone()))
            .collect();
        idle.sort_unstable();
        idle.truncate((self.threads.len() + room).saturating_sub(limits.threads));
        limits.next_sweep = limits.threads.max(self.threads.len() - idle.len() + room);
        if !idle.is_empty() && !std::mem::replace(&mut limits.is_logged, true) {
            tracing::warn!(
                threads = limits.threads,
                "the default store keeps no more threads: those that have been idle for longest are forgotten"
            );
        }
        for (_, id) in idle {
            self.remove_thread(&id);
        }
    }
}

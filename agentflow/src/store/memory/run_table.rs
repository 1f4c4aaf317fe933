//! [`Runs`]: the runs of a store, with the order in which they were accepted.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    super::{
        id::ThreadId,
        run::{RunRow, RunStatus},
        value::Timestamp,
    },
    trash::{Removed, Trash},
};
use crate::run_id::RunId;

/// A run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) row: RunRow,
    /// The time until which `consumed` is counted: that of the start, the last commit or the last takeover.
    pub(super) counted_until: Timestamp,
}

impl Run {
    pub(super) fn id(&self) -> RunId {
        self.row.run.id
    }

    /// Returns whether the run has a position: it has started, and may have been released.
    pub(super) fn has_started(&self) -> bool {
        self.row.last_checkpoint.is_some()
    }

    pub(super) fn is_running(&self) -> bool {
        self.row.status == RunStatus::Running
    }

    /// Returns whether the run keeps its thread busy.
    pub(super) fn is_in_the_way(&self, now: Timestamp) -> bool {
        match self.row.status {
            RunStatus::Running => true,
            RunStatus::Queued => self.row.run.not_before.is_none_or(|time| time <= now),
            _ => false,
        }
    }
}

impl Removed for Run {
    fn move_into(self, trash: &mut Trash) {
        trash.put([self.row.run.input, self.row.run.config]);
    }
}

/// The runs, by their place in the order of acceptance.
#[derive(Debug, Default)]
pub(super) struct Runs {
    rows: BTreeMap<u64, Run>,
    places: HashMap<RunId, u64>,
    of_threads: HashMap<ThreadId, OfThread>,
    last: u64,
}

/// The places of the runs of one thread.
#[derive(Debug, Default)]
struct OfThread {
    all: BTreeSet<u64>,
    unfinished: BTreeSet<u64>,
}

impl Runs {
    pub(super) fn get(&self, run: RunId) -> Option<&Run> {
        self.rows.get(self.places.get(&run)?)
    }

    pub(super) fn get_mut(&mut self, run: RunId) -> Option<&mut Run> {
        self.rows.get_mut(self.places.get(&run)?)
    }

    /// Returns the place of the next run.
    pub(super) fn next_place(&self) -> u64 {
        self.last + 1
    }

    /// Adds a run that is not finished.
    pub(super) fn insert(&mut self, run: Run) {
        let place = run.row.sequence;
        self.last = self.last.max(place);
        let of_thread = self.of_threads.entry(run.row.run.thread.clone()).or_default();
        of_thread.all.insert(place);
        of_thread.unfinished.insert(place);
        self.places.insert(run.id(), place);
        self.rows.insert(place, run);
    }

    /// Sets the state in which a run ends.
    pub(super) fn end(&mut self, run: RunId, status: RunStatus, now: Timestamp) {
        let Some(ended) = self.get_mut(run) else { return };
        ended.row.status = status;
        ended.row.updated_at = now;
        let (place, thread) = (ended.row.sequence, ended.row.run.thread.clone());
        if let Some(of_thread) = self.of_threads.get_mut(&thread) {
            of_thread.unfinished.remove(&place);
        }
    }

    pub(super) fn remove(&mut self, run: RunId) -> Option<Run> {
        let place = self.places.remove(&run)?;
        let removed = self.rows.remove(&place)?;
        let thread = &removed.row.run.thread;
        if let Some(of_thread) = self.of_threads.get_mut(thread) {
            of_thread.all.remove(&place);
            of_thread.unfinished.remove(&place);
            if of_thread.all.is_empty() {
                self.of_threads.remove(thread);
            }
        }
        Some(removed)
    }

    /// Returns all runs, the first accepted first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Run> {
        self.rows.values()
    }

    /// Returns the runs of a thread, the first accepted first.
    pub(super) fn of_thread(&self, thread: &ThreadId) -> impl DoubleEndedIterator<Item = &Run> {
        self.of_threads.get(thread).into_iter().flat_map(|runs| &runs.all).filter_map(|place| self.rows.get(place))
    }

    /// Returns the unfinished runs of a thread, the first accepted first.
    pub(super) fn unfinished_of(&self, thread: &ThreadId) -> impl Iterator<Item = &Run> {
        let unfinished = self.of_threads.get(thread).into_iter().flat_map(|runs| &runs.unfinished);
        unfinished.filter_map(|place| self.rows.get(place))
    }

    /// Returns the unfinished runs of all threads, the first accepted first.
    pub(super) fn unfinished(&self) -> impl Iterator<Item = &Run> {
        let places: BTreeSet<u64> = self.of_threads.values().flat_map(|runs| &runs.unfinished).copied().collect();
        places.into_iter().filter_map(|place| self.rows.get(&place))
    }

    /// Returns the run that is in the way of all others on a thread: the running one, or the first in the queue. A released
    /// run is the first, and then the one that was accepted first.
    pub(super) fn first_of(&self, thread: &ThreadId, now: Timestamp) -> Option<&Run> {
        let in_the_way = self.unfinished_of(thread).filter(|run| run.is_in_the_way(now));
        in_the_way.min_by_key(|run| (!run.is_running(), !run.has_started(), run.row.sequence))
    }
}

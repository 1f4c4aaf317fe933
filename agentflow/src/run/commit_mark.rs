//! [`CommitMark`]: whether a state is committed.

use std::sync::atomic::{AtomicBool, Ordering};

/// Records whether a state is committed. Each state has one mark: a graph that is a node shares the mark of the graph
/// around it, as it shares the state.
///
/// All accesses are relaxed: the walk and the reader of the mark run in one task, one after the other.
#[derive(Debug)]
pub(crate) struct CommitMark(AtomicBool);

impl CommitMark {
    /// Creates the mark of a state that no node has changed yet.
    #[inline]
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(true))
    }

    /// Records that a node may change the state from now on.
    #[inline]
    pub(crate) fn changes_begin(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Records that the state is committed: the node has succeeded, or its changes were undone.
    #[inline]
    pub(crate) fn commit(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Returns whether the state is as the last successful node left it.
    #[inline]
    pub(crate) fn is_committed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

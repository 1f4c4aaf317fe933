//! [`BranchLog`]: the updates of one branch of a group, until they are merged.

use std::collections::VecDeque;

use super::path_name::{NodeName, NodePath};
use crate::{panics::catch_panic, state::State};

/// The updates of one branch, in the order in which its nodes ended. The first one, which is the only one of most
/// branches, takes no allocation.
///
/// The destructor of an update is user code and may panic. The log therefore drops its entries one by one: two panics
/// in one destructor would abort the process.
pub(crate) struct BranchLog<S: State> {
    first: Option<Entry<S>>,
    more: VecDeque<Entry<S>>,
}

/// The update of one execution of a node.
pub(crate) struct Entry<S: State> {
    pub(crate) node: NodeName,
    pub(crate) update: S::Update,
}

impl<S: State> BranchLog<S> {
    pub(crate) const fn new() -> Self {
        Self { first: None, more: VecDeque::new() }
    }

    pub(crate) fn push(&mut self, node: &NodePath<'_>, update: S::Update) {
        self.push_entry(Entry { node: node.to_owned(), update });
    }

    fn push_entry(&mut self, entry: Entry<S>) {
        if self.first.is_none() && self.more.is_empty() {
            self.first = Some(entry);
        } else {
            self.more.push_back(entry);
        }
    }

    /// Moves the updates of a branch of a nested group behind the own ones.
    pub(crate) fn append(&mut self, mut other: Self) {
        while let Some(entry) = other.pop() {
            self.push_entry(entry);
        }
    }

    /// Takes the oldest update out of the log.
    pub(crate) fn pop(&mut self) -> Option<Entry<S>> {
        self.first.take().or_else(|| self.more.pop_front())
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }

    /// Drops all updates but the first `len`.
    pub(crate) fn truncate(&mut self, len: usize) {
        while self.len() > len {
            let last = self.more.pop_back().or_else(|| self.first.take());
            catch_panic(|| drop(last));
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry<S>> {
        self.first.iter().chain(&self.more)
    }
}

impl<S: State> Drop for BranchLog<S> {
    fn drop(&mut self) {
        self.truncate(0);
    }
}

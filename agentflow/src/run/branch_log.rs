//! [`BranchLog`]: the updates of one branch of a group, until they are merged.

use std::iter;

use super::path_name::{NodeName, NodePath};
use crate::state::State;

/// The updates of one branch, in the order in which its nodes ended. The first one, which is the only one of most
/// branches, takes no allocation.
pub(crate) struct BranchLog<S: State> {
    first: Option<Entry<S>>,
    more: Vec<Entry<S>>,
}

/// The update of one execution of a node.
pub(crate) struct Entry<S: State> {
    pub(crate) node: NodeName,
    pub(crate) update: S::Update,
}

impl<S: State> BranchLog<S> {
    pub(crate) const fn new() -> Self {
        Self { first: None, more: Vec::new() }
    }

    pub(crate) fn push(&mut self, node: &NodePath<'_>, update: S::Update) {
        self.push_entry(Entry { node: node.to_owned(), update });
    }

    fn push_entry(&mut self, entry: Entry<S>) {
        if self.first.is_none() {
            self.first = Some(entry);
        } else {
            self.more.push(entry);
        }
    }

    /// Moves the updates of a branch of a nested group behind the own ones.
    pub(crate) fn append(&mut self, other: Self) {
        for entry in other {
            self.push_entry(entry);
        }
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }

    /// Drops all updates but the first `len`.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.more.truncate(len.saturating_sub(1));
        if len == 0 {
            self.first = None;
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry<S>> {
        self.first.iter().chain(&self.more)
    }
}

impl<S: State> IntoIterator for BranchLog<S> {
    type Item = Entry<S>;
    type IntoIter = iter::Chain<std::option::IntoIter<Entry<S>>, std::vec::IntoIter<Entry<S>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.first.into_iter().chain(self.more)
    }
}

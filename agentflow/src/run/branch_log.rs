//! [`BranchLog`]: the updates of one branch of a group, until they are merged.

use std::{collections::VecDeque, sync::Arc};

use super::path_name::NodeName;
use crate::{panics::catch_panic, state::State};

/// The updates of one branch, in the order in which its nodes ended. The first one, which is the only one of most
/// branches, takes no allocation.
///
/// The destructor of an update is user code and may panic. The log therefore drops its entries one by one: two panics
/// in one destructor would abort the process.
pub(crate) struct BranchLog<S: State> {
    first: Option<Entry<S>>,
    /// The later ones, if there were any. The box keeps the log of most branches small.
    #[allow(clippy::box_collection, reason = "a log without further updates is smaller")]
    more: Option<Box<VecDeque<Entry<S>>>>,
}

/// The update of one execution of a node.
pub(crate) struct Entry<S: State> {
    /// The name of the node, unless it is the only one of the branch.
    pub(crate) node: Option<NodeName>,
    pub(crate) update: S::Update,
}

impl<S: State> Entry<S> {
    /// Returns the name of the node. The branch knows that of its only node.
    pub(crate) fn name(&self, only_node: impl FnOnce() -> Arc<str>) -> Arc<str> {
        self.node.as_ref().map_or_else(only_node, NodeName::format)
    }
}

impl<S: State> BranchLog<S> {
    pub(crate) const fn new() -> Self {
        Self { first: None, more: None }
    }

    #[inline]
    pub(crate) fn push(&mut self, node: Option<NodeName>, update: S::Update) {
        let entry = Entry { node, update };
        if self.first.is_none() && self.more.is_none() {
            self.first = Some(entry);
        } else {
            self.more.get_or_insert_default().push_back(entry);
        }
    }

    /// Moves the updates of a branch of a nested group, whose only node has this name, behind the own ones.
    pub(crate) fn append(&mut self, mut other: Self, only_node: impl Fn() -> NodeName) {
        while let Some(Entry { node, update }) = other.pop() {
            self.push(Some(node.unwrap_or_else(&only_node)), update);
        }
    }

    /// Takes the oldest update out of the log.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Entry<S>> {
        self.first.take().or_else(|| self.more.as_mut()?.pop_front())
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.as_ref().map_or(0, |more| more.len())
    }

    /// Drops all updates but the first `len`.
    pub(crate) fn truncate(&mut self, len: usize) {
        while self.len() > len {
            let last = self.more.as_mut().and_then(|more| more.pop_back()).or_else(|| self.first.take());
            catch_panic(|| drop(last));
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry<S>> {
        self.first.iter().chain(self.more.iter().flat_map(|more| more.iter()))
    }
}

impl<S: State> Drop for BranchLog<S> {
    #[inline]
    fn drop(&mut self) {
        if self.first.is_some() || self.more.is_some() {
            self.truncate(0);
        }
    }
}

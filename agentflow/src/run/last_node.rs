//! [`LastNode`]: the innermost node that an interrupt stopped.

use std::sync::Arc;

use super::path_name::NodePath;
use crate::sync::Mutex;

/// The innermost node that was dropped before its end. A node that ends costs nothing here.
#[derive(Debug, Default)]
pub(crate) struct LastNode(Mutex<Option<Arc<str>>>);

/// Records the node unless it ends: an interrupt drops the node's future, and this guard with it.
pub(super) struct RunningNode<'a> {
    last: &'a LastNode,
    path: &'a NodePath<'a>,
    has_ended: bool,
}

impl LastNode {
    /// Watches a node until its end.
    pub(super) fn watch<'a>(&'a self, path: &'a NodePath<'a>) -> RunningNode<'a> {
        RunningNode { last: self, path, has_ended: false }
    }

    /// Records that the node was dropped before its end.
    pub(super) fn dropped(&self, path: &Arc<str>) {
        let mut last = self.0.lock();
        // A node inside this one is dropped first, and its more exact name is kept.
        if !last.as_deref().is_some_and(|last| is_inside(last, path)) {
            *last = Some(Arc::clone(path));
        }
    }

    /// Forgets the nodes inside an attempt that failed, so that the node itself is named if it is stopped before the next
    /// one.
    pub(super) fn forget(&self) {
        *self.0.lock() = None;
    }

    /// Returns the node.
    pub(super) fn get(&self) -> Option<Arc<str>> {
        self.0.lock().clone()
    }
}

impl RunningNode<'_> {
    pub(super) fn ended(mut self) {
        self.has_ended = true;
    }
}

impl Drop for RunningNode<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.last.dropped(self.path.name());
        }
    }
}

/// Returns whether `node` is inside the graph `outer`.
fn is_inside(node: &str, outer: &str) -> bool {
    node.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
}

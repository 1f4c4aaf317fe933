//! [`LastNode`]: the innermost node that an interrupt stopped.

use std::sync::Arc;

use crate::{
    graph::plan::{Plan, Step, Work},
    state::State,
    sync::Mutex,
};

/// The innermost node that was dropped before its end. A node that ends costs nothing here.
#[derive(Debug, Default)]
pub(crate) struct LastNode(Mutex<Option<Arc<str>>>);

/// Records the node unless it ends: an interrupt drops the node's future, and this guard with it.
pub(super) struct RunningNode<'a> {
    last: &'a LastNode,
    path: &'a Arc<str>,
    has_ended: bool,
}

impl LastNode {
    /// Watches a node until its end.
    pub(super) fn watch<'a>(&'a self, path: &'a Arc<str>) -> RunningNode<'a> {
        RunningNode { last: self, path, has_ended: false }
    }

    /// Forgets the nodes inside an attempt that failed, so that the node itself is named if it is stopped before the next
    /// one.
    pub(super) fn forget(&self) {
        *self.0.lock() = None;
    }

    /// Returns the innermost node that the run was at, in a step of its outermost graph.
    pub(super) fn within<S: State, C>(&self, plan: &Plan<S, C>, step: &Step<S, C>) -> Arc<str> {
        let last = self.0.lock().clone().filter(|last| contains(plan, step, last));
        last.unwrap_or_else(|| Arc::clone(&plan.first_node(step).name))
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
            let mut last = self.last.0.lock();
            // A node inside this one is dropped first, and its more exact name is kept.
            if !last.as_deref().is_some_and(|last| is_inside(last, self.path)) {
                *last = Some(Arc::clone(self.path));
            }
        }
    }
}

/// Returns whether `node` is inside the graph `outer`.
fn is_inside(node: &str, outer: &str) -> bool {
    node.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
}

/// Returns whether the node belongs to the step: it is the step, also for an item of an `each`, or is in its group or graph.
fn contains<S: State, C>(plan: &Plan<S, C>, step: &Step<S, C>, node: &str) -> bool {
    match &step.work {
        Work::Group(group) => {
            group.branches.iter().flat_map(|branch| &branch.steps).any(|step| contains(plan, plan.step(*step), node))
        }
        Work::Node(_) | Work::Branch(_) => {
            node.strip_prefix(&*step.name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '[']))
        }
    }
}

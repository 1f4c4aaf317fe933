//! [`VisitLog`]: the last nodes of a run, for its errors.

use std::sync::Arc;

use crate::sync::Mutex;

/// The last nodes that a run visited. Most runs end far below the recursion limit and record nothing.
#[derive(Debug)]
pub(crate) struct VisitLog {
    /// Visits are recorded once fewer steps than this are left: enough for one round of a loop.
    length: usize,
    visits: Mutex<Visits>,
}

#[derive(Debug, Default)]
struct Visits {
    visited: Vec<Arc<str>>,
    /// The last node inside a subgraph.
    inner: Option<Arc<str>>,
}

impl VisitLog {
    /// Creates a log for a graph with this number of nodes.
    pub(super) fn new(nodes: usize) -> Self {
        Self { length: nodes.min(32), visits: Mutex::default() }
    }

    /// Records a visit of the node `path`, after which the path has `steps_left` steps left.
    #[inline]
    pub(super) fn record(&self, path: &Arc<str>, steps_left: usize, is_in_subgraph: bool) {
        if steps_left < self.length || is_in_subgraph {
            self.store(path, steps_left, is_in_subgraph);
        }
    }

    /// Stores a visit. Kept out of `record`, which is a part of every step.
    #[cold]
    fn store(&self, path: &Arc<str>, steps_left: usize, is_in_subgraph: bool) {
        let mut visits = self.visits.lock();
        if steps_left < self.length {
            visits.visited.push(Arc::clone(path));
        }
        if is_in_subgraph {
            visits.inner = Some(Arc::clone(path));
        }
    }

    /// Returns the nodes since the last visit of `node`, or without one the nodes that were visited repeatedly before
    /// it; none if there was no loop.
    pub(super) fn loop_to(&self, node: &Arc<str>) -> Vec<Arc<str>> {
        let visits = self.visits.lock();
        let last = visits.visited.iter().rposition(|visited| visited == node);
        let round = &visits.visited[last.unwrap_or(0)..];
        let mut nodes: Vec<Arc<str>> = Vec::new();
        for visited in round {
            if !nodes.contains(visited) {
                nodes.push(Arc::clone(visited));
            }
        }
        if last.is_none() && nodes.len() == round.len() {
            nodes.clear();
        }
        nodes
    }

    /// Returns the innermost node that the run is at, where `node` is the current node of the outermost graph.
    pub(super) fn innermost(&self, node: Arc<str>) -> Arc<str> {
        let is_inside = |inner: &Arc<str>| inner.strip_prefix(&*node).is_some_and(|rest| rest.starts_with('/'));
        self.visits.lock().inner.clone().filter(is_inside).unwrap_or(node)
    }
}

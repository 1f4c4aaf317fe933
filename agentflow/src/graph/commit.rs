//! [`Commit`]: what a graph's hook for commits receives.

use std::fmt;

use crate::{config::RunConfig, run_id::RunId};

/// A commit of a run: a node has succeeded, and its changes to the state count. See
/// [`StateGraph::on_commit`](crate::StateGraph::on_commit).
///
/// All names are those of the graph that has the hook, without the names of the graphs that it is nested in.
#[non_exhaustive]
pub struct Commit<'a, S> {
    /// The node that succeeded, or the group whose branches were joined.
    pub node: &'a str,
    /// The node or the group at which the run continues; `None` if the graph has reached `END`.
    /// [`invoke_from`](crate::CompiledGraph::invoke_from) continues there in another run.
    pub next: Option<&'a str>,
    /// The id of the run.
    pub run_id: RunId,
    /// The configuration of the run: its thread, its user, and the values and services of the caller.
    pub config: &'a RunConfig,
    /// The state as the node left it.
    pub state: &'a S,
}

/// A graph's hook for commits.
pub(crate) type OnCommit<S> = Box<dyn Fn(Commit<'_, S>) + Send + Sync>;

// The impls are not derived, because the state need not be `Clone`.
impl<S> Clone for Commit<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Commit<'_, S> {}

impl<S> fmt::Debug for Commit<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commit")
            .field("node", &self.node)
            .field("next", &self.next)
            .field("run_id", &self.run_id)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

//! The options of a run on a thread, which [`RunConfig`](crate::RunConfig) holds.

use std::sync::Arc;

use crate::run::recorder::NextStep;

/// The nodes before and after which a run stops.
#[derive(Clone, Debug, Default)]
pub(super) struct Stops {
    pub(super) before: Vec<Arc<str>>,
    pub(super) after: Vec<Arc<str>>,
}

impl Stops {
    /// Returns whether the run stops between a node and the step that follows it. `*` stands for all nodes.
    pub(super) fn stop_between(&self, node: &str, next: &NextStep<'_>) -> bool {
        let names = |list: &[Arc<str>], node: &str| list.iter().any(|name| &**name == "*" || &**name == node);
        names(&self.after, node) || next.nodes.iter().any(|next| names(&self.before, next))
    }
}

//! [`Invocation`]: one attempt of one node.

use std::sync::Arc;

use super::{error::NodeFailure, event_channel::EventWriter, scope::PathScope};

/// One attempt of one node in a run.
///
/// The contexts of nodes borrow it, because every future that a value passes through copies it.
#[derive(Debug)]
pub(crate) struct Invocation<'a> {
    pub(crate) scope: &'a PathScope<'a>,
    /// The node's name, prefixed with the names of the subgraphs that it is in.
    pub(crate) path: &'a Arc<str>,
    pub(crate) attempt: u32,
    /// The failure that led the run to this node by another node's `on_error`.
    pub(crate) error: Option<&'a NodeFailure>,
    pub(crate) events: EventWriter,
    /// Set if an update of the node has to be undone if a reducer panics, because the node may run again, or has a fallback.
    pub(crate) undoes_updates: bool,
}

//! [`Arrival`] and [`Invocation`]: the beginning of a step, and one attempt of its node.

use std::sync::Arc;

use crate::carried::Carried;

use super::{error::NodeFailure, event_channel::EventWriter, scope::PathScope};

/// The arrival of a path at a step, with the failure of the step before, or with the value of the edge.
#[derive(Clone, Copy, Default)]
pub(crate) struct Arrival<'a> {
    pub(crate) error: Option<&'a NodeFailure>,
    pub(crate) input: Option<&'a Carried>,
}

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
    /// The value that the edge to this node carries.
    pub(crate) input: Option<&'a Carried>,
    pub(crate) events: EventWriter,
    /// Set if an update of the node has to be undone if a reducer panics, because the node may run again, or has a fallback.
    pub(crate) undoes_updates: bool,
}

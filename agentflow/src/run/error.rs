//! [`RunError`]: the error of a run, with the run's last state.

use std::{any::Any, error::Error, fmt, sync::Arc, time::Duration};

use serde_json::value::RawValue;

use crate::{
    error::NodeError, panics::text_of, question::AskedQuestion, run_id::RunId, state::State, store::StoreError,
};

/// The error of a run that did not reach `END`. The state can be taken back from it, so that no work is lost.
///
/// ```
/// use agentflow::{AgentState, RunConfig, graph, node, run::LastState};
///
/// #[node]
/// async fn broken(_state: &AgentState) -> Result<(), std::io::Error> {
///     Err(std::io::Error::other("the disk is full"))
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let app = graph! { broken -> END };
/// let mut error = app.invoke(AgentState::default(), RunConfig::new()).await.unwrap_err();
/// assert_eq!(error.node(), Some("broken"));
/// assert!(error.downcast_ref::<std::io::Error>().is_some());
/// assert!(matches!(error.take_state::<AgentState>(), Some(LastState::Committed(_))));
/// # }
/// ```
pub struct RunError(Box<Inner>);

struct Inner {
    run_id: RunId,
    kind: RunErrorKind,
    /// The state, until the caller takes it back.
    state: Option<LastState<Box<dyn Any + Send + Sync>>>,
}

/// The reason for which a run ended before `END`.
#[derive(Debug)]
#[non_exhaustive]
pub enum RunErrorKind {
    /// The app is shutting down or is down; the run did not start.
    Closed,
    /// A streamed run has no tokio runtime: it was started outside of one, or its runtime was shut down.
    NoRuntime,
    /// The graph has no node of the name at which [`invoke_from`](crate::CompiledGraph::invoke_from) was to start; the run
    /// did not start.
    #[non_exhaustive]
    UnknownNode {
        /// The name.
        node: Arc<str>,
        /// The node that may have been meant.
        suggestion: Option<Arc<str>>,
    },
    /// The node at which [`invoke_from`](crate::CompiledGraph::invoke_from) was to start is inside a group, which only runs
    /// as a whole; the run did not start.
    #[non_exhaustive]
    InsideGroup {
        /// The node.
        node: Arc<str>,
        /// The group, at which a run can start.
        group: Arc<str>,
    },
    /// A node returned an error, panicked or timed out.
    Node(NodeFailure),
    /// A node asked a question in a run without a thread, where no answer can come. The state is as it was before the node.
    #[non_exhaustive]
    Asked {
        /// The node.
        node: Arc<str>,
        /// The question, as JSON.
        question: Box<RawValue>,
        /// The nodes of other branches of the same group that asked as well, with their questions.
        others: Vec<(Arc<str>, Box<RawValue>)>,
    },
    /// A run that answered some of the questions of a group has ended, and the others are still open.
    #[non_exhaustive]
    StillAsking {
        /// The group.
        node: Arc<str>,
    },
    /// Two branches of a group replaced the same field, so that one of the values would be lost. Nothing of the group is
    /// merged. Mark the field `#[state(append)]` or `#[state(with = ..)]` to merge the values instead.
    #[non_exhaustive]
    Conflict {
        /// The field.
        field: &'static str,
        /// The nodes that replaced it.
        nodes: [Arc<str>; 2],
    },
    /// The caller's token was cancelled.
    #[non_exhaustive]
    Cancelled {
        /// The running node, or the next one.
        node: Arc<str>,
    },
    /// The run took longer than its `run_timeout`.
    #[non_exhaustive]
    TimedOut {
        /// The timeout.
        limit: Duration,
        /// The running node, or the next one.
        node: Arc<str>,
    },
    /// The app was shut down, and the run did not end within the `shutdown_timeout`.
    #[non_exhaustive]
    ShutDown {
        /// The running node, or the next one.
        node: Arc<str>,
    },
    /// The store of the run's thread failed. The last steps are not known to be recorded; the thread is as its last commit left
    /// it, and the run goes on there once it is recovered.
    Store(StoreError),
    /// A state, or a value on an edge, cannot be written as JSON without a loss.
    #[non_exhaustive]
    Unwritable {
        /// The node that left the state.
        node: Arc<str>,
        /// The field, and what is wrong.
        error: String,
    },
    /// The run was stopped before or after a node, by an option of the run.
    #[non_exhaustive]
    Stopped {
        /// The names of the nodes that run next.
        next: Vec<Arc<str>>,
    },
    /// The run on a thread did not start.
    #[non_exhaustive]
    NotStarted {
        /// The text of the [`ThreadError`](crate::thread::ThreadError).
        error: String,
    },
    /// A path has more node executions than the graph's `recursion_limit`.
    #[non_exhaustive]
    RecursionLimit {
        /// The limit.
        limit: usize,
        /// The node that is a graph with this limit; `None` if it is the limit of the run's own graph.
        graph: Option<Arc<str>>,
        /// The first node above the limit.
        node: Arc<str>,
        /// The nodes of the loop that leads to it; empty if the path has no loop and is just longer than the limit.
        nodes: Vec<Arc<str>>,
    },
}

impl RunErrorKind {
    /// Returns the name of the variant, as a store holds it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Closed => "Closed",
            Self::NoRuntime => "NoRuntime",
            Self::UnknownNode { .. } => "UnknownNode",
            Self::InsideGroup { .. } => "InsideGroup",
            Self::Node(_) => "Node",
            Self::Asked { .. } => "Asked",
            Self::StillAsking { .. } => "StillAsking",
            Self::Conflict { .. } => "Conflict",
            Self::Cancelled { .. } => "Cancelled",
            Self::TimedOut { .. } => "TimedOut",
            Self::ShutDown { .. } => "ShutDown",
            Self::Store(_) => "Store",
            Self::Unwritable { .. } => "Unwritable",
            Self::Stopped { .. } => "Stopped",
            Self::NotStarted { .. } => "NotStarted",
            Self::RecursionLimit { .. } => "RecursionLimit",
        }
    }

    /// Returns whether a run that is recorded ends with this after a step that was committed.
    pub(super) fn is_after_commit(&self) -> bool {
        matches!(self, Self::Stopped { .. } | Self::ShutDown { .. })
    }

    /// Returns whether the run ended as it was meant to, and another run goes on from there.
    pub(super) fn is_pause(&self) -> bool {
        matches!(self, Self::Stopped { .. } | Self::Asked { .. } | Self::StillAsking { .. })
    }
}

/// The failure of a node in its last attempt.
#[derive(Debug)]
#[non_exhaustive]
pub struct NodeFailure {
    /// The name of the node; inside a subgraph `SUBGRAPH/NODE`.
    pub node: Arc<str>,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// The duration of the attempt. Up to 16 branches of a group that begin one after the other are measured from the
    /// beginning of the first.
    pub elapsed: Duration,
    /// The error that the node returned, [`Panicked`](crate::error::Panicked) if it panicked, or
    /// [`AttemptTimedOut`](crate::error::AttemptTimedOut) if it exceeded its timeout.
    pub source: NodeError,
}

impl NodeFailure {
    /// Returns the failure with the text of its error in the place of the error.
    pub(super) fn copy(&self) -> Self {
        let Self { node, attempt, elapsed, source } = self;
        Self { node: Arc::clone(node), attempt: *attempt, elapsed: *elapsed, source: text_of(source).into() }
    }

    /// Creates the failure of a node's first attempt, for unit tests of a node that handles failures.
    #[must_use]
    pub fn new(node: impl Into<Arc<str>>, source: impl Into<NodeError>) -> Self {
        Self { node: node.into(), attempt: 1, elapsed: Duration::ZERO, source: source.into() }
    }
}

impl fmt::Display for NodeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, attempt, elapsed, source } = self;
        write!(f, "node `{node}` failed (attempt {attempt}, after {elapsed:.1?}): {source}")
    }
}

/// The error of an `any` whose branches have all failed. Find it with [`RunError::downcast_ref`], or in a fallback
/// with [`NodeError::downcast_ref`].
#[derive(Debug)]
#[non_exhaustive]
pub struct AllFailed {
    /// The failures, one for each branch, in the order in which the branches are written.
    pub failures: Vec<NodeFailure>,
}

impl fmt::Display for AllFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("all branches failed")?;
        for (index, failure) in self.failures.iter().enumerate() {
            write!(f, "{} {failure}", if index == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

impl Error for AllFailed {}

/// A run's state as it was when the run failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the state may be half changed; check which variant it is"]
pub enum LastState<S> {
    /// The state as the last successful node left it.
    Committed(S),
    /// The failed node had mutable access to the state (`&mut S`) and may have changed a part of it.
    Uncommitted(S),
}

impl<S> LastState<S> {
    /// Returns the state of either variant.
    pub fn into_inner(self) -> S {
        match self {
            Self::Committed(state) | Self::Uncommitted(state) => state,
        }
    }
}

impl RunError {
    /// Creates the error of a run whose state is lost.
    pub(crate) fn without_state(run_id: RunId, kind: RunErrorKind) -> Self {
        Self(Box::new(Inner { run_id, kind, state: None }))
    }

    /// Returns the reason for which the run ended.
    #[must_use]
    pub fn kind(&self) -> &RunErrorKind {
        &self.0.kind
    }

    /// Returns the id of the run.
    #[must_use]
    pub fn run_id(&self) -> RunId {
        self.0.run_id
    }

    /// Returns the node that failed or asked, or at which the run was interrupted, or `None` if the run did not start.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        match self.kind() {
            RunErrorKind::Closed
            | RunErrorKind::NoRuntime
            | RunErrorKind::UnknownNode { .. }
            | RunErrorKind::InsideGroup { .. }
            | RunErrorKind::Store(_)
            | RunErrorKind::Stopped { .. }
            | RunErrorKind::NotStarted { .. } => None,
            RunErrorKind::Node(NodeFailure { node, .. })
            | RunErrorKind::Asked { node, .. }
            | RunErrorKind::StillAsking { node }
            | RunErrorKind::Conflict { nodes: [_, node], .. }
            | RunErrorKind::Cancelled { node }
            | RunErrorKind::TimedOut { node, .. }
            | RunErrorKind::ShutDown { node }
            | RunErrorKind::Unwritable { node, .. }
            | RunErrorKind::RecursionLimit { node, .. } => Some(node),
        }
    }

    /// Returns the error of the node, if it is an `E`.
    #[must_use]
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        match self.kind() {
            RunErrorKind::Node(failure) => failure.source.downcast_ref(),
            _ => None,
        }
    }

    /// Takes the run's state. Returns `None` if it was taken before or is not an `S`.
    pub fn take_state<S: State>(&mut self) -> Option<LastState<S>> {
        let is_s = |state: &Box<dyn Any + Send + Sync>| state.is::<S>();
        match &self.0.state {
            Some(LastState::Committed(state) | LastState::Uncommitted(state)) if is_s(state) => {}
            _ => return None,
        }
        match self.0.state.take()? {
            LastState::Committed(state) => Some(LastState::Committed(*state.downcast().ok()?)),
            LastState::Uncommitted(state) => Some(LastState::Uncommitted(*state.downcast().ok()?)),
        }
    }
}

/// The failure of a walk through a graph or a part of it: a [`RunError`] without the state.
///
/// It is passed on in a box, which keeps the results that every step returns small.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: RunErrorKind,
    /// `true` if the state is as the last successful node left it.
    pub(crate) is_committed: bool,
}

#[allow(clippy::unnecessary_box_returns, reason = "a failure is passed on in its box")]
impl Failure {
    pub(crate) fn new(kind: RunErrorKind, is_committed: bool) -> Box<Self> {
        Box::new(Self { kind, is_committed })
    }

    pub(crate) fn committed(kind: RunErrorKind) -> Box<Self> {
        Self::new(kind, true)
    }

    /// Creates the failure of a node. If the node is a graph, its error already is the failure of a node inside it or of
    /// the run, and is returned as it is. A question becomes [`RunErrorKind::Asked`].
    pub(super) fn of_node(mut failure: NodeFailure, is_committed: bool) -> Box<Self> {
        match failure.source.downcast::<Self>() {
            Ok(mut inner) => {
                inner.is_committed = is_committed;
                inner
            }
            Err(source) => {
                let kind = match source.downcast::<AskedQuestion>() {
                    Ok(asked) => {
                        RunErrorKind::Asked { node: failure.node, question: asked.question, others: Vec::new() }
                    }
                    Err(source) => {
                        failure.source = source;
                        RunErrorKind::Node(failure)
                    }
                };
                Self::new(kind, is_committed)
            }
        }
    }

    /// Returns the error of the run that ended with this failure and left this state.
    pub(crate) fn into_error<S: State>(self, run_id: RunId, state: S) -> RunError {
        let state = Box::new(state) as _;
        let last = if self.is_committed { LastState::Committed(state) } else { LastState::Uncommitted(state) };
        RunError(Box::new(Inner { run_id, kind: self.kind, state: Some(last) }))
    }

    /// Returns the node's failure if a fallback can continue with the state, and `self` otherwise.
    pub(super) fn into_recoverable(self) -> Result<NodeFailure, Box<Self>> {
        match self {
            Self { kind: RunErrorKind::Node(failure), is_committed: true } => Ok(failure),
            other => Err(Box::new(other)),
        }
    }
}

impl NodeError {
    /// Returns whether this is the question of a node, and not a failure. A node that wraps another one passes it on as it is.
    ///
    /// [`NodeContext::reborrow`](crate::graph::NodeContext::reborrow) has an example.
    #[must_use]
    pub fn is_question(&self) -> bool {
        let is_asked = |failure: &Failure| matches!(failure.kind, RunErrorKind::Asked { .. });
        self.downcast_ref::<AskedQuestion>().is_some() || self.downcast_ref::<Failure>().is_some_and(is_asked)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

/// Implemented so that a subgraph can return it as a node's error.
impl Error for Failure {}

impl fmt::Display for RunErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the app is shut down: it starts no more runs"),
            Self::NoRuntime => f.write_str(
                "there is no tokio runtime for the run: start it inside of a runtime, and read it before the runtime ends",
            ),
            Self::UnknownNode { node, suggestion } => {
                write!(f, "a run cannot start at `{node}`: the graph has no such node")?;
                suggestion.as_ref().map_or(Ok(()), |suggestion| write!(f, "; did you mean `{suggestion}`?"))
            }
            Self::InsideGroup { node, group } => {
                write!(f, "a run cannot start at `{node}`, which is inside the group `{group}`: start at the group")
            }
            Self::Node(failure) => failure.fmt(f),
            Self::StillAsking { node } => write!(f, "questions of `{node}` are still open"),
            Self::Asked { node, .. } => write!(
                f,
                "node `{node}` asked a question, which needs a thread to be answered in: `app.thread(id)`"
            ),
            Self::Conflict { field, nodes: [first, second] } => write!(
                f,
                "nodes `{first}` and `{second}` run in parallel and both replace `{field}`; \
                 let only one of them replace it, or merge the values with `#[state(append)]` or `#[state(with = ..)]`"
            ),
            Self::Cancelled { node } => write!(f, "cancelled at node `{node}`"),
            Self::TimedOut { limit, node } => write!(f, "timed out after {limit:?} at node `{node}`"),
            Self::ShutDown { node } => write!(f, "stopped at node `{node}`: the app was shut down"),
            Self::Store(error) => error.fmt(f),
            Self::Unwritable { node, error } => write!(f, "what node `{node}` left cannot be stored: {error}"),
            Self::Stopped { next } => write!(f, "stopped before `{}`", next.join("`, `")),
            Self::NotStarted { error } => write!(f, "the run did not start: {error}"),
            Self::RecursionLimit { limit, graph, node, nodes } => {
                write!(f, "the recursion limit of {limit} node executions ")?;
                if let Some(graph) = graph {
                    write!(f, "of the graph `{graph}` ")?;
                }
                write!(f, "was reached before node `{node}`")?;
                if !nodes.is_empty() {
                    write!(f, ", in the loop of `{}`", nodes.join("`, `"))?;
                }
                f.write_str("; raise it with `compile { recursion_limit: .. }` if the path is meant to be that long")
            }
        }
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.kind.fmt(f)
    }
}

impl fmt::Debug for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunError").field("run_id", &self.0.run_id).field("kind", &self.0.kind).finish_non_exhaustive()
    }
}

impl Error for RunError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self.kind() {
            // The text of this error contains the node's own error already, so its source comes next.
            RunErrorKind::Node(failure) => failure.source.as_error().source(),
            _ => None,
        }
    }
}

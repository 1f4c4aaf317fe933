//! [`Node`]: one step of a graph, and what it is given.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio_util::sync::CancellationToken;

use crate::{
    BackgroundTaskManager, EventWriter, NodeError, NodeFailure, State, config::RunConfig, graph::Outline, run::Scope,
    run_id::RunId,
};

/// One step of a graph: an `async fn` with [`#[node]`](macro@crate::node), or a type that implements this by hand.
///
/// `S` is the graph's state, `C` the app's context (its services), `()` where it has none.
///
/// ```
/// use agentflow::{AgentState, Message, NodeError, RunConfig, graph, graph::{Node, NodeContext}};
///
/// struct Greet {
///     greeting: &'static str,
/// }
///
/// impl<C: Send + Sync + 'static> Node<AgentState, C> for Greet {
///     type Output = ();
///
///     async fn run(&self, cx: NodeContext<'_, AgentState, C>) -> Result<(), NodeError> {
///         cx.state.context.push(Message::assistant(self.greeting));
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), agentflow::RunError> {
/// let app = graph! { node GREET = (Greet { greeting: "hello" }); GREET -> END };
/// let state = app.invoke(AgentState::default(), RunConfig::new()).await?;
/// assert_eq!(state.context[0].text(), "hello");
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a node that runs on state `{S}`",
    label = "not a node of this graph",
    note = "annotate an `async fn` with `#[agentflow::node]`, or implement `Node` by hand",
    note = "every node of one graph takes the same `state` type"
)]
pub trait Node<S, C = ()>: Send + Sync + 'static {
    /// What the node tells the graph: `()`, or the route to take.
    type Output;

    /// Whether a failed attempt may leave the state half changed.
    ///
    /// `false` promises that the state is written only when the node has succeeded.
    const MUTATES_STATE: bool = true;

    /// Whether the node starts tasks in the background, for pictures of the graph.
    #[doc(hidden)]
    const STARTS_TASKS: bool = false;

    /// Runs the node once.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped at an await when the run is cancelled or times out.
    fn run(&self, cx: NodeContext<'_, S, C>) -> impl Future<Output = Result<Self::Output, NodeError>> + Send;

    /// What a picture of the graph shows inside the node, where the node is a graph itself.
    #[doc(hidden)]
    fn outline(&self) -> Option<&Outline> {
        None
    }
}

/// A node that can run in a group, beside others: it reads the state and gives an update, which is merged at the join.
///
/// `#[node]` implements it for nodes with `state: &S` and for those without state.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot run in a group on state `{S}`",
    label = "not a node that runs side by side with others",
    note = "a node in a group reads: take `state: &{S}` and return an update, `{S}::update()`, or nothing",
    note = "a node with `state: &mut {S}` goes before or after the group",
    note = "a graph goes into a group with `map_state`, which says what it brings"
)]
pub trait ParallelNode<S: State, C = ()>: Send + Sync + 'static {
    /// See [`Node::STARTS_TASKS`].
    const STARTS_TASKS: bool = false;

    /// Runs the node once.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped at an await when another branch fails, or the run is cancelled or times out.
    fn run_parallel(
        &self,
        cx: ParallelContext<'_, S, C>,
    ) -> impl Future<Output = Result<Option<S::Update>, NodeError>> + Send;

    /// See [`Node::outline`].
    #[doc(hidden)]
    fn outline(&self) -> Option<&Outline> {
        None
    }
}

/// What a node is given when it runs.
#[derive(Debug)]
#[non_exhaustive]
pub struct NodeContext<'a, S, C = ()> {
    /// The run's state, changed in place.
    pub state: &'a mut S,
    /// Whose run this is, and the caller's own values.
    pub config: &'a RunConfig,
    /// The app's services.
    pub services: &'a C,
    /// Cancelled when the run is: hand it to what the node starts. The node itself is dropped at its await then.
    pub cancel: &'a CancellationToken,
    /// Writes custom events.
    pub events: &'a EventWriter,
    pub(crate) place: &'a Place<'a>,
    pub(crate) is_written: &'a AtomicBool,
}

/// What a node in a group is given when it runs.
#[derive(Debug)]
#[non_exhaustive]
pub struct ParallelContext<'a, S, C = ()> {
    /// The state as it was at the fork, with the branch's own updates.
    pub state: &'a S,
    /// Whose run this is, and the caller's own values.
    pub config: &'a RunConfig,
    /// The app's services.
    pub services: &'a C,
    /// Cancelled when the run is: hand it to what the node starts. The node itself is dropped at its await then.
    pub cancel: &'a CancellationToken,
    /// Writes custom events.
    pub events: &'a EventWriter,
    pub(crate) place: &'a Place<'a>,
}

/// Where in a run a node is.
///
/// Contexts borrow it: what is handed through several futures is copied by each.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    pub(crate) scope: &'a Scope<'a>,
    /// The node's name, with the names of the subgraphs that it is in.
    pub(crate) path: &'a Arc<str>,
    pub(crate) attempt: u32,
    pub(crate) error: Option<&'a NodeFailure>,
    pub(crate) events: EventWriter,
}

macro_rules! place {
    ($Context:ident) => {
        impl<'a, S, C> $Context<'a, S, C> {
            /// The app's task manager, labelled with this run and node.
            #[must_use]
            pub fn task_manager(&self) -> BackgroundTaskManager {
                self.place.scope.task_manager(self.place.path)
            }

            /// The node's name in the graph; inside a subgraph `SUBGRAPH/NODE`.
            #[must_use]
            pub fn node_name(&self) -> &'a str {
                self.place.path
            }

            /// Which run this is.
            #[must_use]
            pub fn run_id(&self) -> RunId {
                self.place.scope.run.id
            }

            /// Which attempt this is, from 1.
            #[must_use]
            pub fn attempt(&self) -> u32 {
                self.place.attempt
            }

            /// The failure for which the run came here, where it came by another node's `on_error`.
            #[must_use]
            pub fn error(&self) -> Option<&'a NodeFailure> {
                self.place.error
            }
        }
    };
}
place!(NodeContext);
place!(ParallelContext);

impl<'a, S, C> NodeContext<'a, S, C> {
    pub(crate) fn new(state: &'a mut S, services: &'a C, place: &'a Place<'a>, is_written: &'a AtomicBool) -> Self {
        let Place { scope, events, .. } = place;
        let run = scope.run;
        Self { state, config: run.config, services, cancel: run.signals.cancel, events, place, is_written }
    }

    pub(crate) fn replace(self, state: S) {
        self.is_written.store(true, Ordering::Relaxed);
        *self.state = state;
    }
}

impl<'a, S, C> ParallelContext<'a, S, C> {
    pub(crate) fn new(state: &'a S, services: &'a C, place: &'a Place<'a>) -> Self {
        let Place { scope, events, .. } = place;
        let run = scope.run;
        Self { state, config: run.config, services, cancel: run.signals.cancel, events, place }
    }
}

impl<S: State, C> NodeContext<'_, S, C> {
    /// Merges an update into the state, and tells the run's stream which fields it changed.
    pub fn apply(&mut self, update: S::Update) {
        self.events.changed(|| S::changes(&update));
        self.is_written.store(true, Ordering::Relaxed);
        self.state.apply(update);
    }
}

/// A context that has a `T` for the nodes that `#[inject]` one.
///
/// ```
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use agentflow::{AgentState, Provide, RunConfig, graph, node};
///
/// #[derive(Default)]
/// struct Counter(AtomicU32);
///
/// #[derive(Default)]
/// struct Services {
///     counter: Counter,
/// }
///
/// impl Provide<Counter> for Services {
///     fn provide(&self) -> &Counter {
///         &self.counter
///     }
/// }
///
/// #[node]
/// async fn count(#[inject] counter: &Counter) {
///     counter.0.fetch_add(1, Ordering::Relaxed);
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), agentflow::RunError> {
/// let app = graph! {
///     type State = AgentState;
///     count -> END;
///     compile { services: Services::default() }
/// };
/// app.invoke(AgentState::default(), RunConfig::new()).await?;
/// assert_eq!(app.services().counter.0.load(Ordering::Relaxed), 1);
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "a node injects `{T}`, which the services `{Self}` of the app do not provide",
    label = "this node injects `{T}`",
    note = "write `impl Provide<{T}> for Services`, and hand the services to the graph: `compile {{ services: services }}`"
)]
pub trait Provide<T: ?Sized> {
    /// The service.
    fn provide(&self) -> &T;
}

/// A context may be the one service that there is.
#[diagnostic::do_not_recommend]
impl<T: ?Sized> Provide<T> for T {
    fn provide(&self) -> &T {
        self
    }
}

/// What a node can return for a decision to follow: see [`#[derive(Route)]`](derive@crate::Route). `bool` is one too.
pub trait Route: Send + 'static {}

impl Route for bool {}

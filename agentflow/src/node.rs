//! [`Node`]: one step of a graph, and what it is given.

use std::{future::Future, sync::Arc};

use tokio_util::sync::CancellationToken;

use crate::{BackgroundTaskManager, EventWriter, NodeError, RunConfig, RunId};

/// One step of a graph: an `async fn` with [`#[node]`](macro@crate::node), or a type that implements this by hand.
///
/// `S` is the graph's state, `C` the app's context (its services), `()` where it has none.
///
/// ```
/// use agentflow::{AgentState, Message, Node, NodeContext, NodeError, RunConfig, graph};
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
    const IN_PLACE: bool = true;

    /// Runs the node once.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped at an await when the run is cancelled or times out.
    fn run(&self, cx: NodeContext<'_, S, C>) -> impl Future<Output = Result<Self::Output, NodeError>> + Send;
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
    pub context: &'a C,
    /// Cancelled when the run is.
    pub cancel: &'a CancellationToken,
    /// Writes custom events.
    pub events: &'a EventWriter,
    pub(crate) run_id: RunId,
    pub(crate) node: &'a Arc<str>,
    pub(crate) manager: &'a BackgroundTaskManager,
}

impl<S, C> NodeContext<'_, S, C> {
    /// The app's task manager, labelled with this run and node.
    #[must_use]
    pub fn task_manager(&self) -> BackgroundTaskManager {
        self.manager.labelled(self.run_id, Arc::clone(self.node))
    }

    /// The node's name in the graph.
    #[must_use]
    pub fn node_name(&self) -> &str {
        self.node
    }

    /// Which run this is.
    #[must_use]
    pub fn run_id(&self) -> RunId {
        self.run_id
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
///     compile { context: Services::default() }
/// };
/// app.invoke(AgentState::default(), RunConfig::new()).await?;
/// assert_eq!(app.context().counter.0.load(Ordering::Relaxed), 1);
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "a node injects `{T}`, which the app's context `{Self}` does not provide",
    label = "this node injects `{T}`",
    note = "write `impl Provide<{T}> for Services`, and hand the services to the graph: `compile {{ context: services }}`"
)]
pub trait Provide<T: ?Sized> {
    /// The service.
    fn provide(&self) -> &T;
}

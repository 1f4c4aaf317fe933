//! [`Node`]: one step of a graph, its inputs and its routes.

mod context;
mod info;

use std::future::Future;

use crate::{error::NodeError, graph::outline::Outline, state::State};

pub use context::{NodeContext, ParallelContext};
pub use info::NodeInfo;

/// One step of a graph: an `async fn` with [`#[node]`](macro@crate::node), or a type that implements this by hand.
///
/// `S` is the graph's state, `C` is the type of the app's services, `()` for an app without services, and `I` is the type
/// of the value that the edge to the node carries, `()` for a node that plain edges lead to.
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
pub trait Node<S, C = (), I = ()>: Send + Sync + 'static {
    /// The output of the node: `()`, or the route to take.
    type Output;

    /// `true` if a failed attempt may leave the state half changed.
    ///
    /// `false` promises that the state is written only after the node has succeeded.
    const MUTATES_STATE: bool = true;

    /// The properties that the graph knows before the node runs. A node that wraps another one forwards them: `N::INFO`.
    const INFO: NodeInfo = NodeInfo::new();

    /// Runs the node once.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped at its current await when the run is cancelled or times out.
    fn run(&self, cx: NodeContext<'_, S, C, I>) -> impl Future<Output = Result<Self::Output, NodeError>> + Send;

    /// Returns the outline that pictures show inside the node, if the node is a graph itself.
    #[doc(hidden)]
    fn outline(&self) -> Option<&Outline> {
        None
    }
}

/// A node that can run in a parallel group: it reads the state and returns an update, which is merged at the join, and
/// the route to take.
///
/// `#[node]` implements it for nodes with `state: &S` and for nodes without state.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot run in a group on state `{S}`",
    label = "not a node that runs in parallel with others",
    note = "a node in a group reads: take `state: &{S}` and return an update, `{S}::update()`, or nothing",
    note = "a node with `state: &mut {S}` goes before or after the group",
    note = "a graph goes into a group with `map_state`, which says what it brings"
)]
pub trait ParallelNode<S: State, C = (), I = ()>: Send + Sync + 'static {
    /// The output of the node: `()`, or the route to take.
    type Output;

    /// See [`Node::INFO`].
    const INFO: NodeInfo = NodeInfo::new();

    /// `true` if the node is a function, which cannot pass its context on to other nodes. `#[node]` sets it.
    #[doc(hidden)]
    const IS_FUNCTION: bool = false;

    /// Runs the node once.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped at its current await when another branch fails, or the run is cancelled or times out.
    fn run_parallel(
        &self,
        cx: ParallelContext<'_, S, C, I>,
    ) -> impl Future<Output = Result<(Option<S::Update>, Self::Output), NodeError>> + Send;

    /// See [`Node::outline`].
    #[doc(hidden)]
    fn outline(&self) -> Option<&Outline> {
        None
    }
}

/// Services that contain a `T`, for nodes that `#[inject]` one.
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
    note = "add `#[derive(Provide)]` to the struct of the services, with a field of type `{T}`, and hand it to the graph: `compile {{ services: services }}`"
)]
pub trait Provide<T: ?Sized> {
    /// Returns the service.
    fn provide(&self) -> &T;
}

/// A single service is itself the services of an app.
#[diagnostic::do_not_recommend]
impl<T: ?Sized> Provide<T> for T {
    fn provide(&self) -> &T {
        self
    }
}

/// A value that a node returns and that a decision matches on: an enum with [`#[derive(Route)]`](derive@crate::Route), or
/// `bool`.
pub trait Route: Send + 'static {}

impl Route for bool {}

//! [`ErasedGraph`]: a compiled graph without the type of its services.

use std::{fmt, sync::Arc};

use futures_util::future::BoxFuture;

use super::{compiled::CompiledGraph, dot, mermaid, outline::Outline};
use crate::{
    config::RunConfig,
    error::NodeError,
    node::{Node, NodeContext},
    run::{RunError, RunStream, commit_mark::CommitMark, invocation::Invocation},
    shutdown::ShutdownReport,
    state::State,
    task::BackgroundTaskManager,
};

/// A [`CompiledGraph`] without the type of its services, made by [`CompiledGraph::erase`].
///
/// Graphs with one state and different services fit into one map this way. An erased graph is the same app as the one
/// that it was made from: it has the same name, limits, runs and task manager. Cloning is cheap.
///
/// ```
/// use std::collections::HashMap;
/// use agentflow::{AgentState, Message, RunConfig, graph, graph::ErasedGraph, node};
///
/// struct Greeting(&'static str);
///
/// #[node]
/// async fn greet(state: &mut AgentState, #[inject] greeting: &Greeting) {
///     state.context.push(Message::assistant(greeting.0));
/// }
///
/// #[node]
/// async fn echo(state: &mut AgentState) {
///     let last = state.context.last().map(Message::text).unwrap_or_default();
///     state.context.push(Message::assistant(last));
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), agentflow::RunError> {
/// let greeter = graph! { greet -> END; compile { services: Greeting("hello") } };
/// let parrot = graph! { echo -> END };
/// let agents: HashMap<&str, ErasedGraph<AgentState>> =
///     HashMap::from([("greeter", greeter.erase()), ("parrot", parrot.erase())]);
///
/// let state = agents["parrot"].invoke(AgentState::from_user("hi"), RunConfig::new()).await?;
/// assert_eq!(state.context[1].text(), "hi");
/// # Ok(())
/// # }
/// ```
pub struct ErasedGraph<S: State>(Arc<dyn Erased<S>>);

/// The methods of a compiled graph that do not name its services.
trait Erased<S: State>: fmt::Debug + Send + Sync {
    fn invoke(&self, state: S, config: RunConfig) -> BoxFuture<'_, Result<S, RunError>>;
    fn invoke_from<'a>(&'a self, node: &'a str, state: S, config: RunConfig) -> BoxFuture<'a, Result<S, RunError>>;
    fn stream(&self, state: S, config: RunConfig) -> RunStream<S>;
    fn try_stream(&self, state: S, config: RunConfig) -> Result<RunStream<S>, RunError>;
    fn is_closed(&self) -> bool;
    fn aclose(&self) -> BoxFuture<'_, ShutdownReport>;
    fn stop(&self) -> BoxFuture<'_, ShutdownReport>;
    fn task_manager(&self) -> &BackgroundTaskManager;
    fn name(&self) -> &str;
    fn outline(&self) -> &Outline;
    /// Runs the graph as a node of another one.
    fn run_inside<'a>(
        &'a self,
        state: &'a mut S,
        commit: &'a CommitMark,
        invocation: &'a Invocation<'a>,
    ) -> BoxFuture<'a, Result<(), NodeError>>;
}

impl<S: State, C: Send + Sync + 'static> Erased<S> for CompiledGraph<S, C> {
    fn invoke(&self, state: S, config: RunConfig) -> BoxFuture<'_, Result<S, RunError>> {
        Box::pin(self.invoke(state, config))
    }

    fn invoke_from<'a>(&'a self, node: &'a str, state: S, config: RunConfig) -> BoxFuture<'a, Result<S, RunError>> {
        Box::pin(self.invoke_from(node, state, config))
    }

    fn stream(&self, state: S, config: RunConfig) -> RunStream<S> {
        self.stream(state, config)
    }

    fn try_stream(&self, state: S, config: RunConfig) -> Result<RunStream<S>, RunError> {
        self.try_stream(state, config)
    }

    fn is_closed(&self) -> bool {
        self.is_closed()
    }

    fn aclose(&self) -> BoxFuture<'_, ShutdownReport> {
        Box::pin(self.aclose())
    }

    fn stop(&self) -> BoxFuture<'_, ShutdownReport> {
        Box::pin(self.stop())
    }

    fn task_manager(&self) -> &BackgroundTaskManager {
        self.task_manager()
    }

    fn name(&self) -> &str {
        self.name()
    }

    fn outline(&self) -> &Outline {
        &self.app.outline
    }

    fn run_inside<'a>(
        &'a self,
        state: &'a mut S,
        commit: &'a CommitMark,
        invocation: &'a Invocation<'a>,
    ) -> BoxFuture<'a, Result<(), NodeError>> {
        Box::pin(self.run_as_node(state, commit, invocation))
    }
}

impl<S: State, C: Send + Sync + 'static> CompiledGraph<S, C> {
    /// Hides the type of the services, so that graphs with different services fit into one collection.
    ///
    /// The result is the same app: it has the same name, limits, runs and task manager.
    #[must_use]
    pub fn erase(self) -> ErasedGraph<S> {
        ErasedGraph(Arc::new(self))
    }
}

impl<S: State> ErasedGraph<S> {
    /// Runs the graph and returns the final state; see [`CompiledGraph::invoke`].
    ///
    /// # Errors
    ///
    /// As [`CompiledGraph::invoke`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the run.
    pub async fn invoke(&self, state: S, config: RunConfig) -> Result<S, RunError> {
        self.0.invoke(state, config).await
    }

    /// Runs the graph from a node; see [`CompiledGraph::invoke_from`].
    ///
    /// # Errors
    ///
    /// As [`CompiledGraph::invoke_from`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the run.
    pub async fn invoke_from(&self, node: &str, state: S, config: RunConfig) -> Result<S, RunError> {
        self.0.invoke_from(node, state, config).await
    }

    /// Runs the graph and returns its events as a stream; see [`CompiledGraph::stream`].
    pub fn stream(&self, state: S, config: RunConfig) -> RunStream<S> {
        self.0.stream(state, config)
    }

    /// Runs the graph as a stream, unless the run is refused; see [`CompiledGraph::try_stream`].
    ///
    /// # Errors
    ///
    /// As [`CompiledGraph::try_stream`].
    pub fn try_stream(&self, state: S, config: RunConfig) -> Result<RunStream<S>, RunError> {
        self.0.try_stream(state, config)
    }

    /// Returns whether the app is shutting down or is down; see [`CompiledGraph::is_closed`].
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Shuts the app down within its `shutdown_timeout`; see [`CompiledGraph::aclose`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future is safe; another call continues the shutdown.
    pub async fn aclose(&self) -> ShutdownReport {
        self.0.aclose().await
    }

    /// Shuts the app down without waiting for its work; see [`CompiledGraph::stop`].
    ///
    /// # Cancel safety
    ///
    /// As [`aclose`](Self::aclose).
    pub async fn stop(&self) -> ShutdownReport {
        self.0.stop().await
    }

    /// Returns the manager of the app's background tasks.
    #[must_use]
    pub fn task_manager(&self) -> &BackgroundTaskManager {
        self.0.task_manager()
    }

    /// Returns the name of the graph.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// Draws the graph as a [Mermaid](https://mermaid.js.org) flowchart.
    #[must_use]
    pub fn mermaid(&self) -> String {
        mermaid::flowchart(self.0.outline())
    }

    /// Draws the graph as a [Graphviz](https://graphviz.org) digraph.
    #[must_use]
    pub fn dot(&self) -> String {
        dot::digraph(self.0.outline())
    }

    /// Draws the graph as an SVG document; see [`CompiledGraph::svg`].
    #[cfg(feature = "svg")]
    #[must_use]
    pub fn svg(&self) -> String {
        super::svg::document(self.0.outline())
    }
}

/// An erased graph is a node of every graph with its state, as the graph itself is.
impl<S: State, C: Send + Sync + 'static> Node<S, C> for ErasedGraph<S> {
    type Output = ();

    async fn run(&self, cx: NodeContext<'_, S, C>) -> Result<(), NodeError> {
        self.0.run_inside(cx.state, cx.commit, cx.invocation).await
    }

    fn outline(&self) -> Option<&Outline> {
        Some(self.0.outline())
    }
}

impl<S: State> Clone for ErasedGraph<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: State> fmt::Debug for ErasedGraph<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ErasedGraph").field(&self.0).finish()
    }
}

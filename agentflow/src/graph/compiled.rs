//! [`CompiledGraph`]: a graph that is ready to run.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use super::{app::App, builder::StateGraph, dot, error::BuildError, lower::lower, mermaid, options::CompileOptions};
use crate::{
    config::RunConfig,
    durable::StoreSink,
    run::{self, RunError, RunStream, invocation::Arrival},
    shutdown::ShutdownReport,
    state::State,
    store::{Keeps, Persistence},
    task::BackgroundTaskManager,
};

/// A graph that is ready to run, with its services and background tasks. Any number of runs, each with a state of its
/// own, may be active at the same time.
///
/// Clones are cheap and share one app. The app owns a [`BackgroundTaskManager`]: call [`aclose`](Self::aclose) before the
/// process ends. Otherwise dropping the last clone cancels the tasks that still run and logs a warning that names them.
pub struct CompiledGraph<S: State, C = ()> {
    pub(crate) app: Arc<App<S, C>>,
}

impl<S, C: Send + Sync + 'static, P: Persistence> StateGraph<S, C, P> {
    /// Checks the graph and makes it ready to run.
    ///
    /// Up to 32 graphs and groups may be inside each other: a run polls all of them on one stack. A graph that a
    /// [`Node`](crate::graph::Node) of one's own runs is not counted, and neither is a run that a node invokes.
    ///
    /// # Errors
    ///
    /// [`BuildError`] lists every problem, each with the call that caused it.
    pub fn compile(self, options: CompileOptions<C, P>) -> Result<CompiledGraph<S, C>, BuildError>
    where
        S: State,
        P: Keeps<S>,
    {
        let name = self.name();
        let tasks = self.tasks.iter().map(|declared| declared.task).collect();
        let (plan, outline) = lower(self, options.store.is_some())?;
        let app = Arc::new(App::new(name, plan, outline, tasks, options));
        if app.store.is_some() {
            app.manager.set_durable_sink(Arc::new(StoreSink::new(&app)));
        }
        Ok(CompiledGraph { app })
    }
}

impl<S: State, C: Send + Sync + 'static> CompiledGraph<S, C> {
    /// Runs the graph from its entry to `END` and returns the state.
    ///
    /// The future resolves as soon as the last node is done; background tasks continue.
    ///
    /// # Errors
    ///
    /// [`RunError`] if a node fails or panics, two branches of a group replace the same field, the run is cancelled,
    /// times out or exceeds the recursion limit, or the app is shutting down. The state can be taken back from the error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the run: the running node is dropped at its current await, and no further node starts.
    pub async fn invoke(&self, state: S, config: RunConfig) -> Result<S, RunError> {
        run::run(&self.app, None, Arrival::default(), state, config).await
    }

    /// Runs the graph as [`invoke`](Self::invoke) does, but from this node or group, with a state that it would have
    /// there. What stands before it does not run.
    ///
    /// [`StateGraph::on_commit`](crate::StateGraph::on_commit) hands out such states, with the names at which runs
    /// continue: together the two are a checkpointer.
    ///
    /// ```
    /// use agentflow::{AgentState, Message, RunConfig, graph, node};
    ///
    /// #[node]
    /// async fn plan(state: &mut AgentState) {
    ///     state.context.push(Message::assistant("a plan"));
    /// }
    ///
    /// #[node]
    /// async fn write(state: &mut AgentState) {
    ///     state.context.push(Message::assistant("a report"));
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), agentflow::RunError> {
    /// let app = graph! { plan -> write -> END };
    /// let state = app.invoke_from("write", AgentState::default(), RunConfig::new()).await?;
    /// assert_eq!(state.context[0].text(), "a report");
    ///
    /// let error = app.invoke_from("wrote", state, RunConfig::new()).await.unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "a run cannot start at `wrote`: the graph has no such node; did you mean `write`?",
    /// );
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`invoke`](Self::invoke); [`UnknownNode`](crate::run::RunErrorKind::UnknownNode) if the graph has no node or
    /// group of this name, and [`InsideGroup`](crate::run::RunErrorKind::InsideGroup) if the node is in a group, which only
    /// runs as a whole.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the run.
    pub async fn invoke_from(&self, node: &str, state: S, config: RunConfig) -> Result<S, RunError> {
        run::run(&self.app, Some(node), Arrival::default(), state, config).await
    }

    /// Runs the graph from a node that asked on, with the answer to its question.
    ///
    /// # Errors
    ///
    /// As [`invoke_from`](Self::invoke_from), and the error of serde if the answer is none of the node's type.
    #[doc(hidden)]
    pub async fn __answer(
        &self,
        node: &str,
        answer: &str,
        state: S,
        config: RunConfig,
    ) -> Result<S, Box<dyn Error + Send + Sync>> {
        let step = self.app.plan.steps.iter().find(|step| &*step.name == node);
        let answer_type = step.and_then(|step| step.work.info().answer());
        let answer = answer_type.map(|answer_type| answer_type.decode(answer)).transpose()?;
        Ok(run::run(&self.app, Some(node), Arrival::resumed(None, None, answer), state, config).await?)
    }

    /// Runs the graph as [`invoke`](Self::invoke) does, in a tokio task of its own, and returns a stream of its events.
    ///
    /// The task runs on the caller's runtime; outside of one, on that of the app's [task manager](Self::task_manager).
    /// Where there is none, the stream ends with [`RunErrorKind::NoRuntime`](crate::run::RunErrorKind::NoRuntime). A run
    /// that a background task streams is a part of that task, as one that it invokes.
    pub fn stream(&self, state: S, config: RunConfig) -> RunStream<S> {
        run::stream(Arc::clone(&self.app), state, config)
    }

    /// Runs the graph as [`stream`](Self::stream) does, unless the run is refused: a service finds that out before its
    /// response begins.
    ///
    /// ```
    /// use agentflow::{AgentState, RunConfig, graph, node, run::RunErrorKind};
    ///
    /// #[node]
    /// async fn answer(_state: &mut AgentState) {}
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let app = graph! { answer -> END };
    /// app.aclose().await;
    /// let status = match app.try_stream(AgentState::default(), RunConfig::new()) {
    ///     Ok(_run) => 200,
    ///     Err(error) if matches!(error.kind(), RunErrorKind::Closed) => 503,
    ///     Err(_) => 500,
    /// };
    /// assert_eq!(status, 503);
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`RunErrorKind::Closed`](crate::run::RunErrorKind::Closed) if the app is shutting down or is down, and
    /// [`RunErrorKind::NoRuntime`](crate::run::RunErrorKind::NoRuntime) outside of a runtime. The state can be taken back
    /// from the error.
    pub fn try_stream(&self, state: S, config: RunConfig) -> Result<RunStream<S>, RunError> {
        run::try_stream(Arc::clone(&self.app), state, config)
    }

    /// Shuts the app down gracefully: refuses new runs and tasks, waits up to `shutdown_timeout` for outstanding ones,
    /// cancels the rest, and reports the outcome.
    ///
    /// While it waits, the app accepts what outstanding work starts: the children of live tasks, the tasks of live runs,
    /// and the runs that a live task of the app or a node of a live run starts with [`invoke`](Self::invoke) or
    /// [`stream`](Self::stream). A queue of tasks that invoke the app is therefore worked off.
    ///
    /// Graphs that are nodes of this one, and were compiled with a task manager of their own, share this shutdown: their
    /// managers are drained and closed too.
    ///
    /// The future resolves within `shutdown_timeout` plus the longest grace period plus 100 ms, whatever runs and tasks
    /// do. The longest grace period is the manager's [own](crate::task::TaskManagerOptions::grace_period) or that of a
    /// task with a longer [`grace_period`](crate::task::TaskBuilder::grace_period). If there are tasks with
    /// [`cancel_last`](crate::task::TaskBuilder::cancel_last), their longest grace period and another 100 ms are added.
    ///
    /// The method may be called several times, also concurrently: every call returns when the app is down, with the same
    /// report. A node that awaits it waits for its own run until the timeout, and is cancelled then; spawn a task for the
    /// call instead.
    ///
    /// # Cancel safety
    ///
    /// Safe to drop. The app stays closed to new work, and another call continues the shutdown.
    pub async fn aclose(&self) -> ShutdownReport {
        self.app.shut_down(self.app.shutdown_timeout).await
    }

    /// Shuts the app down as [`aclose`](Self::aclose) does with a `shutdown_timeout` of zero: runs and tasks are cancelled
    /// at once, and have only their grace periods to end. A concurrent `aclose` that is still waiting is cut short.
    ///
    /// # Cancel safety
    ///
    /// The same as for [`aclose`](Self::aclose).
    pub async fn stop(&self) -> ShutdownReport {
        self.app.shut_down(Duration::ZERO).await
    }
}

impl<S: State, C> CompiledGraph<S, C> {
    /// Returns whether the app is shutting down or is down: [`aclose`](Self::aclose) or [`stop`](Self::stop) was called,
    /// and new runs are refused. Until the app is down, it still accepts the runs that its own live tasks start.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.app.runs.is_draining()
    }

    /// Returns the manager of the app's background tasks.
    #[must_use]
    pub fn task_manager(&self) -> &BackgroundTaskManager {
        &self.app.manager
    }

    /// Returns the services that the graph was compiled with.
    #[must_use]
    pub fn services(&self) -> &C {
        &self.app.services
    }

    /// Returns a picture of the graph as a [Mermaid](https://mermaid.js.org) flowchart.
    #[must_use]
    pub fn mermaid(&self) -> String {
        mermaid::flowchart(&self.app.outline)
    }

    /// Returns a picture of the graph as a [Graphviz](https://graphviz.org) digraph.
    #[must_use]
    pub fn dot(&self) -> String {
        dot::digraph(&self.app.outline)
    }

    /// Returns a picture of the graph as a self-contained SVG document. Needs the feature `svg`.
    ///
    /// A page can include the document as it is and find its parts: the `<g>` of a node has the attribute `data-node`, and
    /// that of an edge has `data-from` and `data-to`. The names are those of [events](crate::run::EventKind), such as
    /// `SUB/A` for a node of a nested graph.
    ///
    /// The same graph has the same picture. The layout takes milliseconds for tens of nodes; when it would take more than
    /// about a second, the nodes are drawn in one column.
    ///
    /// ```
    /// use agentflow::{AgentState, graph, node};
    ///
    /// #[node]
    /// async fn plan(_state: &mut AgentState) {}
    ///
    /// #[node]
    /// async fn write(_state: &mut AgentState) {}
    ///
    /// let app = graph! { plan -> write -> END };
    /// let svg = app.svg();
    /// assert!(svg.starts_with("<svg "));
    /// assert!(svg.contains("<g data-from=\"plan\" data-to=\"write\">"));
    /// ```
    #[cfg(feature = "svg")]
    #[must_use]
    pub fn svg(&self) -> String {
        super::svg::document(&self.app.outline)
    }

    /// Returns the name of the graph.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.app.name
    }
}

impl<S: State, C> Clone for CompiledGraph<S, C> {
    fn clone(&self) -> Self {
        Self { app: Arc::clone(&self.app) }
    }
}

impl<S: State, C> fmt::Debug for CompiledGraph<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompiledGraph")
            .field("name", &self.app.name)
            .field("nodes", &self.app.plan.names())
            .field("tasks", &self.app.tasks)
            .field("task_manager", &self.app.manager)
            .finish_non_exhaustive()
    }
}

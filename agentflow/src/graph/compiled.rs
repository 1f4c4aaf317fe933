//! [`CompiledGraph`]: a graph that is ready to run, and the app around it.

use std::{fmt, sync::Arc, time::Duration};

use super::{CompileOptions, ErasedGraph, MappedGraph, draw::Outline, plan::Plan};
use crate::{
    BackgroundTaskManager, RunError, ShutdownReport, State,
    config::RunConfig,
    run,
    run::RunStream,
    shutdown::{RunGate, shut_down},
};

/// A graph that is ready to run: any number of runs at once, each with a state of its own.
///
/// Clones are cheap and are the same app. It owns a [`BackgroundTaskManager`]: call [`aclose`](Self::aclose) before the
/// process ends, or dropping the last clone cancels the tasks that still run, and a warning names them.
pub struct CompiledGraph<S: State, C = ()> {
    pub(super) app: Arc<App<S, C>>,
}

/// All that belongs to one compiled graph.
pub(crate) struct App<S: State, C> {
    pub(crate) name: Arc<str>,
    pub(crate) plan: Plan<S, C>,
    pub(super) outline: Outline,
    pub(crate) services: C,
    pub(crate) recursion_limit: usize,
    /// How many nodes the graph has, those of the graphs in it too.
    pub(crate) nodes: usize,
    pub(crate) runs: RunGate,
    pub(crate) manager: BackgroundTaskManager,
    shutdown_timeout: Duration,
}

impl<S: State, C: Send + Sync + 'static> CompiledGraph<S, C> {
    pub(super) fn new(name: Arc<str>, plan: Plan<S, C>, outline: Outline, options: CompileOptions<C>) -> Self {
        let nodes = outline.nodes();
        let app = App {
            name,
            recursion_limit: options.recursion_limit.unwrap_or_else(|| nodes.max(25)),
            nodes,
            plan,
            outline,
            services: options.services,
            runs: RunGate::new(),
            manager: options.task_manager.unwrap_or_default(),
            shutdown_timeout: options.shutdown_timeout,
        };
        Self { app: Arc::new(app) }
    }

    /// Runs the graph from its entry to `END` and gives back the state.
    ///
    /// It returns as soon as the last node is done; background tasks go on.
    ///
    /// # Errors
    ///
    /// [`RunError`], when a node fails or panics, the run is cancelled or times out, or the app is shutting down. The
    /// state can be taken back from it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the run: the node that runs is dropped at its await, later ones never start.
    pub async fn invoke(&self, state: S, config: RunConfig) -> Result<S, RunError> {
        run::run(&self.app, state, config).await
    }

    /// The same run, whose events are read as they happen.
    pub fn stream(&self, state: S, config: RunConfig) -> RunStream<S> {
        run::stream(Arc::clone(&self.app), state, config)
    }

    /// This graph as a node of graphs with another state: `into` makes its state from theirs, `back` what it brings them.
    ///
    /// ```
    /// use agentflow::{AgentState, Message, RunConfig, State, graph, node};
    ///
    /// #[derive(Clone, Default, State)]
    /// struct Question {
    ///     text: String,
    ///     answer: String,
    /// }
    ///
    /// #[node]
    /// async fn answer(state: &mut Question) {
    ///     state.answer = state.text.to_uppercase();
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), agentflow::RunError> {
    /// let expert = graph! { answer -> END };
    /// let app = graph! {
    ///     node EXPERT = expert.map_state(
    ///         |state: &AgentState| Question { text: state.context[0].text(), ..Question::default() },
    ///         |question| AgentState::update().context([Message::assistant(question.answer)]),
    ///     );
    ///     EXPERT -> END
    /// };
    /// let state = app.invoke(AgentState::from_user("why?"), RunConfig::new()).await?;
    /// assert_eq!(state.context[1].text(), "WHY?");
    /// # Ok(())
    /// # }
    /// ```
    pub fn map_state<O, I, B>(self, into: I, back: B) -> MappedGraph<S, C, I, B>
    where
        O: State,
        I: Fn(&O) -> S + Send + Sync + 'static,
        B: Fn(S) -> O::Update + Send + Sync + 'static,
    {
        MappedGraph { graph: self, into, back }
    }

    /// Hides the type of the services, so that graphs with different services fit into one collection.
    ///
    /// The result is the same app: it has the same name, limits, runs and task manager.
    #[must_use]
    pub fn erase(self) -> ErasedGraph<S> {
        ErasedGraph::new(self)
    }

    /// Shuts down in order: refuses new runs and tasks, waits up to `shutdown_timeout` for those that run, cancels the
    /// rest, and says what became of them.
    ///
    /// A node that calls it waits for its own run until the timeout, and is cut off then: spawn a task for it.
    ///
    /// It returns at the latest when `shutdown_timeout`, the longest grace and a tenth of a second are over, whatever runs
    /// and tasks do. The longest grace is the manager's [own](crate::task::TaskManagerOptions::grace_period), or that of a task with a
    /// longer [`grace_period`](crate::task::TaskBuilder::grace_period). Where tasks
    /// [must finish](crate::task::TaskBuilder::cancel_last), their longest grace and another tenth of a second are added. May be
    /// called more than once, at once too: every call returns when the app is down, with the same report.
    ///
    /// # Cancel safety
    ///
    /// Safe to drop; the app stays closed to new work, and another call goes on where this one was.
    pub async fn aclose(&self) -> ShutdownReport {
        shut_down(&self.app.runs, &self.app.manager, self.app.shutdown_timeout).await
    }

    /// [`aclose`](Self::aclose) without the wait: cancels at once, so that of its bound only the graces are left. It hastens
    /// an `aclose` that is still waiting.
    ///
    /// # Cancel safety
    ///
    /// As [`aclose`](Self::aclose).
    pub async fn stop(&self) -> ShutdownReport {
        shut_down(&self.app.runs, &self.app.manager, Duration::ZERO).await
    }
}

impl<S: State, C> CompiledGraph<S, C> {
    /// The manager of the app's background tasks.
    #[must_use]
    pub fn task_manager(&self) -> &BackgroundTaskManager {
        &self.app.manager
    }

    /// The services that the graph was compiled with.
    #[must_use]
    pub fn services(&self) -> &C {
        &self.app.services
    }

    /// A picture of the graph as a [Mermaid](https://mermaid.js.org) flowchart.
    #[must_use]
    pub fn mermaid(&self) -> String {
        self.app.outline.mermaid()
    }

    /// A picture of the graph as a [Graphviz](https://graphviz.org) digraph.
    #[must_use]
    pub fn dot(&self) -> String {
        self.app.outline.dot()
    }

    /// What the graph is called.
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
            .field("task_manager", &self.app.manager)
            .finish_non_exhaustive()
    }
}

//! [`CompiledGraph`]: a graph that is ready to run, and the app around it.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use super::CompileOptions;
use crate::{
    BackgroundTaskManager, Node, NodeContext, NodeError, RunConfig, RunError, ShutdownReport, State, run,
    shutdown::{RunGate, shut_down},
};

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A graph that is ready to run: any number of runs at once, each with a state of its own.
///
/// Clones are cheap and are the same app. It owns a [`BackgroundTaskManager`]: call [`aclose`](Self::aclose) before the
/// process ends, or dropping the last clone cancels the tasks that still run, and a warning names them.
pub struct CompiledGraph<S, C = ()> {
    app: Arc<App<S, C>>,
}

/// All that belongs to one compiled graph.
pub(crate) struct App<S, C> {
    pub(crate) name: Arc<str>,
    pub(crate) plan: Plan<S, C>,
    pub(crate) context: C,
    pub(crate) recursion_limit: usize,
    pub(crate) runs: RunGate,
    pub(crate) manager: BackgroundTaskManager,
    shutdown_timeout: Duration,
}

/// What the executor walks along.
pub(crate) struct Plan<S, C> {
    pub(crate) steps: Vec<Step<S, C>>,
    /// What follows each step.
    pub(crate) next: Vec<Next>,
    pub(crate) entry: usize,
}

/// A node under its name in this graph.
pub(crate) struct Step<S, C> {
    pub(crate) name: Arc<str>,
    pub(crate) in_place: bool,
    node: Box<dyn ErasedNode<S, C>>,
}

impl<S: State, C: Send + Sync + 'static> Step<S, C> {
    pub(crate) fn new<N: Node<S, C, Output = ()>>(name: Arc<str>, node: N) -> Self {
        Self {
            name,
            in_place: N::IN_PLACE,
            node: Box::new(node),
        }
    }

    pub(crate) fn run<'a>(&'a self, cx: NodeContext<'a, S, C>) -> BoxFuture<'a, Result<(), NodeError>> {
        self.node.run_boxed(cx)
    }
}

/// [`Node`] without the parts that keep a trait from being an object.
trait ErasedNode<S, C>: Send + Sync {
    fn run_boxed<'a>(&'a self, cx: NodeContext<'a, S, C>) -> BoxFuture<'a, Result<(), NodeError>>;
}

impl<S: State, C: Send + Sync + 'static, N: Node<S, C, Output = ()>> ErasedNode<S, C> for N {
    fn run_boxed<'a>(&'a self, cx: NodeContext<'a, S, C>) -> BoxFuture<'a, Result<(), NodeError>> {
        Box::pin(self.run(cx))
    }
}

/// What follows a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    To(usize),
    End,
}

impl<S: State, C: Send + Sync + 'static> CompiledGraph<S, C> {
    pub(super) fn new(name: Arc<str>, plan: Plan<S, C>, options: CompileOptions<C>) -> Self {
        let app = App {
            name,
            recursion_limit: options
                .recursion_limit
                .unwrap_or_else(|| plan.steps.len().max(25)),
            plan,
            context: options.context,
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

    /// Shuts down in order: refuses new runs and tasks, waits up to `shutdown_timeout` for those that run, cancels the
    /// rest, and says what became of them.
    ///
    /// It returns by `shutdown_timeout` and the manager's grace, whatever runs and tasks do. May be called more than
    /// once, at once too: every call returns when the app is down, with the same report.
    ///
    /// # Cancel safety
    ///
    /// Safe to drop; the app stays closed to new work, and another call goes on where this one was.
    pub async fn aclose(&self) -> ShutdownReport {
        shut_down(&self.app.runs, &self.app.manager, self.app.shutdown_timeout).await
    }

    /// [`aclose`](Self::aclose) without the wait: cancels at once. It hastens an `aclose` that is still waiting.
    ///
    /// # Cancel safety
    ///
    /// As [`aclose`](Self::aclose).
    pub async fn stop(&self) -> ShutdownReport {
        shut_down(&self.app.runs, &self.app.manager, Duration::ZERO).await
    }
}

impl<S, C> CompiledGraph<S, C> {
    /// The manager of the app's background tasks.
    #[must_use]
    pub fn task_manager(&self) -> &BackgroundTaskManager {
        &self.app.manager
    }

    /// The services that the graph was compiled with.
    #[must_use]
    pub fn context(&self) -> &C {
        &self.app.context
    }

    /// What the graph is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.app.name
    }
}

impl<S, C> Clone for CompiledGraph<S, C> {
    fn clone(&self) -> Self {
        Self {
            app: Arc::clone(&self.app),
        }
    }
}

impl<S, C> fmt::Debug for CompiledGraph<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<_> = self.app.plan.steps.iter().map(|step| &step.name).collect();
        f.debug_struct("CompiledGraph")
            .field("name", &self.app.name)
            .field("nodes", &nodes)
            .field("task_manager", &self.app.manager)
            .finish_non_exhaustive()
    }
}

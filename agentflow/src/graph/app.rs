//! [`App`]: everything that belongs to one compiled graph.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{sync::OnceCell, time::timeout};

use super::{
    options::CompileOptions,
    outline::{NestedManager, Outline},
    plan::Plan,
};
use crate::{
    carried::InputType,
    panics::catch_panic,
    question::AnswerType,
    run::tracker::RunTracker,
    session::Session,
    shutdown::{ShutdownReport, shut_down},
    state::State,
    store::{Keeps, MemoryStore, StateCodec, Store, StoreError},
    task::{BackgroundTaskManager, TaskRegistry, WorkerState},
};

/// The longest time in which a shutdown releases the durable tasks that were stopped.
const RELEASE: Duration = Duration::from_secs(1);

/// Everything that belongs to one compiled graph.
pub(crate) struct App<S: State, C> {
    pub(crate) name: Arc<str>,
    pub(crate) plan: Plan<S, C>,
    pub(super) outline: Outline,
    /// Shared with the durable tasks that run, which do not keep the app alive.
    pub(crate) services: Arc<C>,
    /// The durable tasks that the app runs.
    pub(crate) tasks: TaskRegistry<C>,
    pub(crate) recursion_limit: usize,
    /// The recursion limit that the options set, which holds inside other graphs as well.
    pub(super) own_limit: Option<usize>,
    /// The state of the worker that runs them.
    pub(crate) worker: WorkerState,
    /// Shared with the runs that have a task of their own.
    pub(crate) runs: Arc<RunTracker>,
    pub(crate) manager: BackgroundTaskManager,
    /// The managers of the graphs inside this one that have their own.
    nested_managers: Vec<NestedManager>,
    pub(super) shutdown_timeout: Duration,
    /// The store that the graph was compiled with.
    pub(crate) store: Option<Arc<dyn Store>>,
    /// Writes and reads the state, in a graph with a store.
    pub(crate) codec: Option<StateCodec<S>>,
    /// The opening of the store, or of the threads in memory.
    session: OnceCell<Arc<Session>>,
    /// The hash of the topology, which checkpoints have.
    pub(crate) hash: u64,
}

impl<S: State, C> App<S, C> {
    pub(super) fn new<P: Keeps<S>>(
        name: Arc<str>,
        plan: Plan<S, C>,
        mut outline: Outline,
        tasks: TaskRegistry<C>,
        options: CompileOptions<C, P>,
    ) -> Self {
        let nodes = outline.nodes();
        outline.manager.clone_from(&options.task_manager);
        outline.outer_option = options.shutdown_timeout.map(|_| "shutdown_timeout");
        let manager = options.task_manager.unwrap_or_default();
        let mut nested_managers = Vec::new();
        outline.collect_managers("", &manager, &mut nested_managers);
        Self {
            name,
            recursion_limit: options.recursion_limit.unwrap_or_else(|| nodes.max(25)),
            own_limit: options.recursion_limit,
            plan,
            hash: outline.hash(),
            session: OnceCell::new(),
            outline,
            services: Arc::new(options.services),
            tasks,
            worker: WorkerState::new(options.task_limits),
            runs: Arc::new(RunTracker::new()),
            manager,
            nested_managers,
            shutdown_timeout: options.shutdown_timeout.unwrap_or(Duration::from_secs(30)),
            store: options.store,
            codec: P::codec(),
        }
    }

    /// Returns the name of the step at which a run begins.
    pub(crate) fn entry(&self) -> Arc<str> {
        Arc::clone(&self.plan.step(self.plan.entry).name)
    }

    /// Returns the names of the nodes that run at a position, as events have them. Without such a position, returns what is
    /// wrong.
    pub(crate) fn nodes_at(&self, path: &[Arc<str>]) -> Result<Vec<Arc<str>>, String> {
        let (graph, step) = self.outline.find(path)?;
        let around = path[..path.len() - 1].join("/");
        let named = |node: Arc<str>| if around.is_empty() { node } else { format!("{around}/{node}").into() };
        Ok(graph.first_nodes(step).into_iter().map(named).collect())
    }

    /// Returns the type of the value that the step at a position receives.
    pub(crate) fn input_of(&self, path: &[Arc<str>]) -> Result<InputType, String> {
        let (graph, step) = self.outline.find(path)?;
        Ok(graph.step(step).input)
    }

    /// Returns the type of the answer that the node at a position takes.
    pub(crate) fn answer_of(&self, path: &[Arc<str>]) -> Result<Option<AnswerType>, String> {
        let (graph, step) = self.outline.find(path)?;
        Ok(graph.step(step).answer)
    }

    /// Returns the type of the answer that a node takes. The name is that of events: `GRAPH/NODE[2]`.
    pub(crate) fn answer_of_node(&self, node: &str) -> Result<Option<AnswerType>, String> {
        let without_items = node.split('[').next().unwrap_or_default();
        let path: Vec<Arc<str>> = without_items.split('/').map(Arc::from).collect();
        let (graph, step) = self.outline.find_anywhere(&path)?;
        Ok(graph.step(step).answer)
    }

    /// Returns the opening of the store, which happens when it is first asked for.
    pub(crate) async fn session(&self) -> Result<Arc<Session>, StoreError> {
        let open = || {
            let store = self.store.clone().unwrap_or_else(|| Arc::new(MemoryStore::of_values()));
            Session::open(store)
        };
        self.session.get_or_try_init(open).await.map(Arc::clone)
    }

    /// Returns the opening of the store, if there is one.
    pub(crate) fn open_session(&self) -> Option<Arc<Session>> {
        self.session.get().map(Arc::clone)
    }

    /// Returns the manager that the graph was compiled with, which its nodes use inside other graphs as well.
    pub(super) fn own_manager(&self) -> Option<&BackgroundTaskManager> {
        self.outline.manager.as_ref()
    }

    /// Returns whether the caller is a live task of the app.
    pub(crate) fn is_in_a_live_task(&self) -> bool {
        let nested = self.nested_managers.iter().map(|nested| &nested.manager);
        let is_current =
            |manager: &BackgroundTaskManager| manager.current_task().is_some_and(|task| manager.is_live(task));
        nested.chain([&self.manager]).any(is_current)
    }

    /// Returns whether the app runs no more durable tasks: it is shutting down, or its manager was closed.
    pub(crate) fn is_stopping(&self) -> bool {
        self.runs.is_draining() || self.manager.is_closing()
    }

    pub(super) async fn shut_down(&self, bound: Duration) -> ShutdownReport {
        let mut report = shut_down(&self.runs, &self.manager, &self.nested_managers, bound).await;
        let released = async {
            // What was spawned is stored, the worker claims nothing more, and what it ran is released.
            self.worker.wait_until_stored().await;
            self.worker.stopped().await;
            if let Some(session) = self.open_session() {
                session.wait_for_tasks().await;
            }
        };
        let mut released = pin!(released);
        // Without durable tasks there is nothing to wait for, and no timer is needed. A store that is away keeps no shutdown
        // waiting: the lease runs out by itself.
        let is_released = released.as_mut().now_or_never().is_some();
        if !is_released && timeout(RELEASE, released).await.is_err() {
            catch_panic(|| {
                tracing::warn!("durable tasks were not released in time; they run again when the lease is over");
            });
        }
        if let Some(session) = self.open_session() {
            report.kept_tasks = session.kept_tasks();
            session.close().await;
        }
        report
    }
}

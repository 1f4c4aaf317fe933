//! [`App`]: everything that belongs to one compiled graph.

use std::{sync::Arc, time::Duration};

use super::{
    options::CompileOptions,
    outline::{NestedManager, Outline},
    plan::Plan,
};
use crate::{
    run::tracker::RunTracker,
    shutdown::{ShutdownReport, shut_down},
    state::State,
    store::{Keeps, StateCodec, Store},
    task::BackgroundTaskManager,
};

/// Everything that belongs to one compiled graph.
pub(crate) struct App<S: State, C> {
    pub(crate) name: Arc<str>,
    pub(crate) plan: Plan<S, C>,
    pub(super) outline: Outline,
    pub(crate) services: C,
    pub(crate) recursion_limit: usize,
    /// The recursion limit that the options set, which holds inside other graphs as well.
    pub(super) own_limit: Option<usize>,
    /// Shared with the runs that have a task of their own.
    pub(crate) runs: Arc<RunTracker>,
    pub(crate) manager: BackgroundTaskManager,
    /// The managers of the graphs inside this one that have their own.
    nested_managers: Vec<NestedManager>,
    pub(super) shutdown_timeout: Duration,
    /// The store that the graph was compiled with.
    #[allow(dead_code, reason = "the threads of the app are kept there")]
    pub(crate) store: Option<Arc<dyn Store>>,
    /// Writes and reads the state, in a graph with a store.
    #[allow(dead_code, reason = "the runs of a thread write and read their states with it")]
    pub(crate) codec: Option<StateCodec<S>>,
}

impl<S: State, C> App<S, C> {
    pub(super) fn new<P: Keeps<S>>(
        name: Arc<str>,
        plan: Plan<S, C>,
        mut outline: Outline,
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
            outline,
            services: options.services,
            runs: Arc::new(RunTracker::new()),
            manager,
            nested_managers,
            shutdown_timeout: options.shutdown_timeout.unwrap_or(Duration::from_secs(30)),
            store: options.store,
            codec: P::codec(),
        }
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

    pub(super) async fn shut_down(&self, bound: Duration) -> ShutdownReport {
        shut_down(&self.runs, &self.manager, &self.nested_managers, bound).await
    }
}

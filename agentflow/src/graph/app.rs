//! [`App`]: everything that belongs to one compiled graph.

use std::{sync::Arc, time::Duration};

use super::{options::CompileOptions, outline::Outline, plan::Plan};
use crate::{run::tracker::RunTracker, state::State, task::BackgroundTaskManager};

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
    pub(super) shutdown_timeout: Duration,
}

impl<S: State, C> App<S, C> {
    pub(super) fn new(name: Arc<str>, plan: Plan<S, C>, outline: Outline, options: CompileOptions<C>) -> Self {
        let nodes = outline.nodes();
        Self {
            name,
            recursion_limit: options.recursion_limit.unwrap_or_else(|| nodes.max(25)),
            own_limit: options.recursion_limit,
            plan,
            outline,
            services: options.services,
            runs: Arc::new(RunTracker::new()),
            manager: options.task_manager.unwrap_or_default(),
            shutdown_timeout: options.shutdown_timeout,
        }
    }
}

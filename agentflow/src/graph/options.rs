//! [`CompileOptions`] and [`NodeOptions`]: what a graph is compiled, and a node run with.

use std::{sync::Arc, time::Duration};

use crate::{BackgroundTaskManager, RetryPolicy};

/// What a graph is compiled with; in `graph!` these are the keys of `compile { .. }`.
///
/// ```
/// use std::time::Duration;
/// use agentflow::CompileOptions;
///
/// let options = CompileOptions::new().shutdown_timeout(Duration::from_secs(10)).recursion_limit(50);
/// # let _ = options;
/// ```
#[derive(Debug)]
#[must_use = "options do nothing until a graph is compiled with them"]
pub struct CompileOptions<C = ()> {
    pub(crate) services: C,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) recursion_limit: Option<usize>,
    pub(crate) task_manager: Option<BackgroundTaskManager>,
}

impl CompileOptions {
    /// No services, a `shutdown_timeout` of 30 s, a `recursion_limit` of 25 or the number of nodes, whichever is more.
    pub fn new() -> Self {
        Self { services: (), shutdown_timeout: Duration::from_secs(30), recursion_limit: None, task_manager: None }
    }
}

impl Default for CompileOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl<C> CompileOptions<C> {
    /// The services that nodes `#[inject]`; see [`Provide`](crate::Provide).
    pub fn services<D>(self, services: D) -> CompileOptions<D> {
        CompileOptions {
            services,
            shutdown_timeout: self.shutdown_timeout,
            recursion_limit: self.recursion_limit,
            task_manager: self.task_manager,
        }
    }

    /// How long [`aclose`](crate::CompiledGraph::aclose) waits for runs and tasks before it cancels them.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.shutdown_timeout = timeout;
        self
    }

    /// How many node runs a path may have before the run fails: what stops a loop that never ends.
    ///
    /// 25, or the number of nodes where a graph has more. A run that reaches `END` in exactly that many is fine.
    pub fn recursion_limit(mut self, limit: usize) -> Self {
        self.recursion_limit = Some(limit);
        self
    }

    /// The manager of the app's background tasks, where its own options matter. The app closes it.
    pub fn task_manager(mut self, manager: BackgroundTaskManager) -> Self {
        self.task_manager = Some(manager);
        self
    }
}

/// What a node is run with; in `graph!` these are the keys of `node NAME = .. { .. }`.
///
/// ```
/// use std::time::Duration;
/// use agentflow::NodeOptions;
///
/// let options = NodeOptions::new().retry(3).timeout(Duration::from_secs(30));
/// # let _ = options;
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "options do nothing until a node is added with them"]
pub struct NodeOptions {
    pub(crate) retry: Option<RetryPolicy>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) label: Option<Arc<str>>,
    pub(crate) on_error: Option<Arc<str>>,
}

impl NodeOptions {
    /// One attempt, no timeout.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tries again when an attempt fails, panics or times out: a number of retries, or a [`RetryPolicy`].
    ///
    /// Every attempt starts from the state as it was before the first one. For that the state is copied once, unless the
    /// node only reads it and no decision follows it: that a decision panics is the node's failure too.
    pub fn retry(mut self, retry: impl Into<RetryPolicy>) -> Self {
        self.retry = Some(retry.into());
        self
    }

    /// How long one attempt may take. Then it is dropped at its await and fails with
    /// [`AttemptTimedOut`](crate::error::AttemptTimedOut). Zero times out at once. In a [`stream`](crate::CompiledGraph::stream) the time
    /// in which the node waits for the reader counts.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// What a picture of the graph shows in place of the node's name.
    pub fn label(mut self, label: impl Into<Arc<str>>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Where the run goes on when the last attempt has failed. That node sees the failure in
    /// [`NodeContext::error`](crate::graph::NodeContext::error), or in its `error` parameter, and the state as it was before the
    /// first attempt. For that the state is copied once, as for [`retry`](Self::retry).
    pub fn on_error(mut self, node: impl Into<Arc<str>>) -> Self {
        self.on_error = Some(node.into());
        self
    }

    /// How a picture names the node: `MODEL`, and below it what it is run with.
    pub(crate) fn describe(&self, name: &str, starts_tasks: bool) -> String {
        let settings: Vec<_> = [
            self.retry.as_ref().map(RetryPolicy::to_string),
            self.timeout.map(|timeout| format!("timeout {timeout:?}")),
            starts_tasks.then(|| "starts tasks".to_owned()),
        ]
        .into_iter()
        .flatten()
        .collect();
        let label = self.label.as_deref().unwrap_or(name);
        if settings.is_empty() { label.to_owned() } else { format!("{label}\n{}", settings.join(", ")) }
    }
}

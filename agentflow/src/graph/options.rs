//! [`CompileOptions`], [`NodeOptions`] and [`EachOptions`]: the options of a graph, of a node and of an `each`.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use crate::{
    retry::RetryPolicy,
    store::{Durable, InMemory, IntoStore, Store},
    task::{BackgroundTaskManager, TaskLimits},
};

/// Options of a compiled graph; in `graph!` these are the keys of `compile { .. }`. Its key `on_commit` is
/// [`StateGraph::on_commit`](crate::StateGraph::on_commit) instead, which knows the type of the state.
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
pub struct CompileOptions<C = (), P = InMemory> {
    pub(crate) services: C,
    pub(crate) shutdown_timeout: Option<Duration>,
    pub(crate) recursion_limit: Option<usize>,
    pub(crate) task_manager: Option<BackgroundTaskManager>,
    pub(crate) store: Option<Arc<dyn Store>>,
    pub(crate) task_limits: TaskLimits,
    persistence: PhantomData<fn() -> P>,
}

impl CompileOptions {
    /// Creates the default options: no services, no store, a `shutdown_timeout` of 30 s, and a `recursion_limit` of 25 or
    /// the number of nodes, whichever is greater.
    pub fn new() -> Self {
        Self {
            services: (),
            shutdown_timeout: None,
            recursion_limit: None,
            task_manager: None,
            store: None,
            task_limits: TaskLimits::default(),
            persistence: PhantomData,
        }
    }
}

impl Default for CompileOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl<C, P> CompileOptions<C, P> {
    /// Sets the services that nodes `#[inject]`; see [`Provide`](crate::Provide).
    pub fn services<D>(self, services: D) -> CompileOptions<D, P> {
        CompileOptions {
            services,
            shutdown_timeout: self.shutdown_timeout,
            recursion_limit: self.recursion_limit,
            task_manager: self.task_manager,
            store: self.store,
            task_limits: self.task_limits,
            persistence: PhantomData,
        }
    }

    /// Sets the store of the app's threads, questions and durable tasks: a [`Store`], or an `Arc` of one.
    ///
    /// A graph with a store has a name, under which the store keeps its threads: `name = ".."` in `graph!`, or
    /// [`set_name`](crate::StateGraph::set_name). What is stored is written as JSON, so the state and the inputs of nodes
    /// are `Serialize` and `Deserialize`. Writing loses nothing: a number that is not finite, for example, ends the run with
    /// an error that names the field.
    ///
    /// A graph that is a node of another one runs with the store of the outer graph.
    pub fn store(self, store: impl IntoStore) -> CompileOptions<C, Durable> {
        CompileOptions {
            services: self.services,
            shutdown_timeout: self.shutdown_timeout,
            recursion_limit: self.recursion_limit,
            task_manager: self.task_manager,
            store: Some(store.into_store()),
            task_limits: self.task_limits,
            persistence: PhantomData,
        }
    }

    /// Sets how long [`aclose`](crate::CompiledGraph::aclose) waits for runs and tasks before it cancels them. The default
    /// is 30 s; zero cancels at once. A graph that is a node of another one is not shut down by itself, so that there the
    /// option is a mistake.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.shutdown_timeout = Some(timeout);
        self
    }

    /// Sets how many node executions a path may have before the run fails, which stops a loop that never ends. An `each`
    /// that runs no node, because it has no items, counts as one execution.
    ///
    /// The default is 25 or the number of nodes, whichever is greater. A run that reaches `END` in exactly that many
    /// executions succeeds.
    pub fn recursion_limit(mut self, limit: usize) -> Self {
        self.recursion_limit = Some(limit);
        self
    }

    /// Sets the manager of the app's background tasks, for a manager with options of its own. The app closes it.
    ///
    /// If the graph is a node of another one, its nodes still spawn in this manager, and the shutdown of the outer app
    /// drains and closes it too; without this option, they spawn in the manager of the outer app.
    pub fn task_manager(mut self, manager: BackgroundTaskManager) -> Self {
        self.task_manager = Some(manager);
        self
    }

    /// Sets how many durable tasks this process runs at a time. The default is 64. With zero it runs none, and fires no
    /// schedules: it leaves the tasks that it spawns to other processes.
    pub fn task_workers(mut self, count: usize) -> Self {
        self.task_limits.all = count;
        self
    }

    /// Sets how many durable tasks of a name this process runs at a time: pairs of the name of a task and a number. A name
    /// that is at its limit blocks no other one.
    ///
    /// ```
    /// use agentflow::CompileOptions;
    ///
    /// let options = CompileOptions::new().task_workers(100).task_limits([("deliver", 4)]);
    /// # let _ = options;
    /// ```
    pub fn task_limits<N: Into<Arc<str>>>(mut self, limits: impl IntoIterator<Item = (N, usize)>) -> Self {
        self.task_limits.named.extend(limits.into_iter().map(|(name, limit)| (name.into(), limit)));
        self
    }
}

/// Options of a node; in `graph!` these are the keys of `node NAME = .. { .. }`.
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
    /// Creates the default options: one attempt, no timeout, no fallback.
    pub fn new() -> Self {
        Self::default()
    }

    /// Retries an attempt that fails, panics or times out. Accepts a number of retries or a [`RetryPolicy`].
    ///
    /// Every attempt starts from the state as it was before the first one. The state is therefore copied once. If
    /// the node only reads it and no decision follows it (a panic of the decision counts as a failure of the node), it is
    /// copied only when the node returns an update.
    pub fn retry(mut self, retry: impl Into<RetryPolicy>) -> Self {
        self.retry = Some(retry.into());
        self
    }

    /// Limits the duration of one attempt. An attempt that exceeds it is dropped at its current await and fails with
    /// [`AttemptTimedOut`](crate::error::AttemptTimedOut). Zero times out at once. In a
    /// [`stream`](crate::CompiledGraph::stream) the time that the node waits for the reader is not included.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the text that pictures of the graph show instead of the node's name.
    pub fn label(mut self, label: impl Into<Arc<str>>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Sets the node at which the run continues after the last attempt has failed. That node receives the failure in
    /// [`NodeContext::error`](crate::graph::NodeContext::error) or in its `error` parameter, and the state as it was
    /// before the first attempt. The state is therefore copied once, as for [`retry`](Self::retry).
    ///
    /// The fallback of a node in a branch of a group is a node of the same branch.
    pub fn on_error(mut self, node: impl Into<Arc<str>>) -> Self {
        self.on_error = Some(node.into());
        self
    }

    /// Returns the label of the node in a picture: its name, and below it its options.
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

/// Options of an `each`; in `graph!` these are the keys of `each items { .. } { BRANCH }`.
///
/// ```
/// use agentflow::EachOptions;
///
/// let options = EachOptions::new().max_parallel(8);
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing until a graph is built with them"]
pub struct EachOptions {
    pub(crate) max_parallel: usize,
    pub(crate) max_items: usize,
}

impl EachOptions {
    /// Creates the default options: 256 items run at once, and there are at most 1,000,000.
    pub fn new() -> Self {
        Self { max_parallel: 256, max_items: 1_000_000 }
    }

    /// Sets how many items run at once; the default is 256. Zero counts as one.
    pub fn max_parallel(mut self, items: usize) -> Self {
        self.max_parallel = items.max(1);
        self
    }

    /// Sets how many items there may be; the default is 1,000,000. With more items the group fails with
    /// [`TooManyItems`](crate::error::TooManyItems), before any of them runs.
    pub fn max_items(mut self, items: usize) -> Self {
        self.max_items = items;
        self
    }
}

impl Default for EachOptions {
    fn default() -> Self {
        Self::new()
    }
}

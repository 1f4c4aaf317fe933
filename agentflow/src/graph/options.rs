//! [`CompileOptions`]: what a graph is compiled with.

use std::time::Duration;

use crate::BackgroundTaskManager;

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
    pub(crate) context: C,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) recursion_limit: Option<usize>,
    pub(crate) task_manager: Option<BackgroundTaskManager>,
}

impl CompileOptions {
    /// No context, a `shutdown_timeout` of 30 s, a `recursion_limit` of 25.
    pub fn new() -> Self {
        Self {
            context: (),
            shutdown_timeout: Duration::from_secs(30),
            recursion_limit: None,
            task_manager: None,
        }
    }
}

impl Default for CompileOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl<C> CompileOptions<C> {
    /// The services that nodes `#[inject]`; see [`Provide`](crate::Provide).
    pub fn context<D>(self, context: D) -> CompileOptions<D> {
        CompileOptions {
            context,
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

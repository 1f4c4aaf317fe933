//! Shutdown: the signals that stop a process, and the report of an app that was shut down.

use std::{
    fmt::{self, from_fn},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use serde::Serialize;
use tokio::time::Instant;

use crate::{
    graph::outline::NestedManager,
    run::tracker::RunTracker,
    store::StoredTaskId,
    task::{BackgroundTaskManager, CloseReport, MAX_PRINTED},
};

pub use crate::run::tracker::RunsReport;

/// Waits until the process is asked to stop: by SIGINT (Ctrl-C) or SIGTERM, on other platforms than Unix by Ctrl-C.
///
/// ```no_run
/// # async fn serve(app: agentflow::CompiledGraph<agentflow::AgentState>) -> std::io::Result<()> {
/// let signal = agentflow::shutdown::signal().await?;
/// println!("{signal}: shutting down");
/// println!("{}", app.aclose().await);
/// # Ok(())
/// # }
/// ```
///
/// From the first call on, these signals no longer terminate the process. Call the function again during `aclose` to react
/// to a second signal, as example 03 does.
///
/// # Cancel safety
///
/// Safe to drop. A signal that arrives while no call waits is lost.
///
/// # Errors
///
/// Fails if the operating system refuses to install the handler.
///
/// # Panics
///
/// Panics outside of a tokio runtime with IO enabled, as `tokio::signal` does.
pub async fn signal() -> std::io::Result<Signal> {
    #[cfg(unix)]
    {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted.map(|()| Signal::Interrupt),
            _ = terminate.recv() => Ok(Signal::Terminate),
        }
    }
    #[cfg(not(unix))]
    {
        tokio::signal::ctrl_c().await.map(|()| Signal::Interrupt)
    }
}

/// A signal that asks the process to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Signal {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM: the request of a supervisor.
    Terminate,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        })
    }
}

/// The outcome of a shutdown, for the app's runs and background tasks.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// The time from the first call until the app was down. Serialized as seconds.
    #[serde(with = "crate::seconds")]
    pub elapsed: Duration,
    /// The outcome of the runs.
    pub runs: RunsReport,
    /// The outcome of the background tasks.
    pub tasks: CloseReport,
    /// The outcome of the background tasks of the graphs inside the app's that have task managers of their own.
    pub nested: Vec<NestedTasks>,
    /// The durable tasks that were stopped and are kept in the store: their attempts were cut off, and they run again in another
    /// process, or after the next start. In [`tasks`](Self::tasks) they count as cancelled or aborted.
    pub kept_tasks: Vec<StoredTaskId>,
}

/// The outcome of the background tasks of a graph that is a node, and has a task manager of its own.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct NestedTasks {
    /// The node; inside a subgraph `SUBGRAPH/NODE`.
    pub node: Arc<str>,
    /// The outcome of the tasks.
    pub tasks: CloseReport,
}

/// The number of nested graphs whose tasks are printed.
const MAX_NESTED: usize = 7;

/// Two lines for the app and its runs, and those of the [`CloseReport`]s of the app and of the first nested graphs: 20 lines
/// at most.
impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RunsReport { ended, unfinished, kept, still_running } = &self.runs;
        // The lines of the unfinished tasks are indented below the line of the tasks.
        let indented = |tasks: &dyn fmt::Display| tasks.to_string().replace('\n', "\n       ");
        write!(f, "shut down in {:.1?}", self.elapsed)?;
        write!(
            f,
            "\n  runs:  {ended} ended meanwhile, {} unfinished, {} still running",
            unfinished.len(),
            still_running.len()
        )?;
        if !kept.is_empty() {
            write!(f, ", {} kept in the store", kept.len())?;
        }
        if !self.kept_tasks.is_empty() {
            write!(f, ", {} durable tasks kept in the store", self.kept_tasks.len())?;
        }
        let nested = &self.nested[..self.nested.len().min(MAX_NESTED)];
        let is_cut = nested.len() < self.nested.len();
        let max = (MAX_PRINTED - 2 - usize::from(is_cut)) / (1 + nested.len());
        write!(f, "\n  tasks: {}", indented(&from_fn(|f| self.tasks.write_lines(f, max))))?;
        for NestedTasks { node, tasks } in nested {
            write!(f, "\n  tasks of `{node}`: {}", indented(&from_fn(|f| tasks.write_lines(f, max))))?;
        }
        match self.nested.len().saturating_sub(MAX_NESTED) {
            0 => Ok(()),
            more => write!(f, "\n  … and the tasks of {more} more nested graphs"),
        }
    }
}

/// Shuts an app down. Every caller runs the same steps on shared state, so that no caller depends on another one.
pub(crate) async fn shut_down(
    runs: &RunTracker,
    manager: &BackgroundTaskManager,
    nested: &[NestedManager],
    bound: Duration,
) -> ShutdownReport {
    let started = runs.drain();
    for manager in all(manager, nested) {
        manager.drain();
    }
    let deadline = Instant::now().checked_add(bound);
    let drained = tokio::select! {
        biased;
        idle = drain(runs, manager, nested, deadline) => idle,
        // Another caller has stopped the runs. A run that is not polled does not end, so there is no use in waiting.
        () = runs.shutdown().wait() => false,
    };
    if !drained {
        runs.stop_all();
    }
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    // Stopped runs get the grace period of tasks to end.
    let grace = all(manager, nested).map(BackgroundTaskManager::grace).max().unwrap_or_default();
    let grace = Instant::now().checked_add(grace);
    let close = |nested: &NestedManager| {
        let NestedManager { node, manager } = nested.clone();
        async move { NestedTasks { node, tasks: manager.close(left).await } }
    };
    let nested = join_all(nested.iter().map(close));
    let (tasks, nested, _) = tokio::join!(manager.close(left), nested, runs.wait_until_idle(grace));
    ShutdownReport { elapsed: runs.time_to_down(started), runs: runs.report(), tasks, nested, kept_tasks: Vec::new() }
}

/// Returns all managers of an app.
fn all<'a>(
    own: &'a BackgroundTaskManager,
    nested: &'a [NestedManager],
) -> impl Iterator<Item = &'a BackgroundTaskManager> {
    std::iter::once(own).chain(nested.iter().map(|nested| &nested.manager))
}

/// Waits until neither a run nor a task is left, or until the deadline. Returns whether none is left; the app then accepts
/// no more runs.
async fn drain(
    runs: &RunTracker,
    manager: &BackgroundTaskManager,
    nested: &[NestedManager],
    deadline: Option<Instant>,
) -> bool {
    loop {
        let Some(idle) = runs.wait_until_idle(deadline).await else { return false };
        for manager in all(manager, nested) {
            if !manager.wait_until_idle(deadline).await {
                return false;
            }
        }
        // One of the tasks may have started a run meanwhile, and the run another task. If none did, nothing is left that
        // could start anything.
        if runs.close_if_idle_since(idle) {
            return true;
        }
    }
}

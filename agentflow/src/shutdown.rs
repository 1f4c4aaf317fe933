//! Shutting down: what an app does when it is told to stop, and how a process hears that it is.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use slab::Slab;
use tokio::{
    sync::{Notify, SetOnce},
    time::{Instant, timeout_at},
};

use crate::{BackgroundTaskManager, run_id::RunId, task::CloseReport};

/// Resolves when the process is asked to stop: SIGINT (Ctrl-C) or SIGTERM; Ctrl-C alone where there are no signals.
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
/// From the first call on these signals no longer end the process by themselves. Call it again beside `aclose` to hear a
/// second one, as example 03 does.
///
/// # Cancel safety
///
/// Safe to drop; a signal that comes while nobody waits is not told later.
///
/// # Errors
///
/// Where the operating system refuses to install the handler.
///
/// # Panics
///
/// None; but it needs a tokio runtime with IO enabled, as `tokio::signal` does.
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

/// Which signal asked the process to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Signal {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM: a supervisor's request.
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

/// What became of an app's runs and background tasks when it was shut down.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// How long the app took to be down, from the first call on.
    pub elapsed: Duration,
    /// What became of the runs.
    pub runs: RunsReport,
    /// What became of the background tasks.
    pub tasks: CloseReport,
}

/// What became of the runs that were live when the app was told to stop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunsReport {
    /// Ended by themselves.
    pub ended: usize,
    /// Did not end in time and were cancelled.
    pub unfinished: Vec<RunId>,
    /// Did not end even so: somebody holds the run's future without polling it, or a node blocks its thread.
    pub still_running: Vec<RunId>,
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RunsReport { ended, unfinished, still_running } = &self.runs;
        write!(f, "shut down in {:.1?}", self.elapsed)?;
        write!(f, "\n  runs:  {ended} ended, {} unfinished, {} still running", unfinished.len(), still_running.len())?;
        // What was cut off belongs to the tasks, and stands below them.
        write!(f, "\n  tasks: {}", self.tasks.to_string().replace('\n', "\n       "))
    }
}

/// Shuts an app down; every caller walks the same road over shared facts, so none has to wait for another.
pub(crate) async fn shut_down(runs: &RunGate, manager: &BackgroundTaskManager, bound: Duration) -> ShutdownReport {
    let started = runs.close();
    manager.drain();
    let deadline = Instant::now().checked_add(bound);
    let drained = tokio::select! {
        biased;
        idle = runs.idle_by(deadline) => idle,
        // Somebody else cut the runs off, and one that nobody polls doesn't end of it.
        () = runs.unfinished.wait() => false,
    };
    if !drained {
        runs.cut_off_all();
    }
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    // Runs that were cut off have the tasks' grace to end.
    let grace = Instant::now().checked_add(manager.grace());
    let (tasks, _) = tokio::join!(manager.close(left), runs.idle_by(grace));
    let elapsed = *runs.down_after.get_or_init(|| started.elapsed());
    ShutdownReport { elapsed, runs: runs.report(), tasks }
}

/// Counts the runs of an app, lets none in once it is closed, and knows who was cut off.
#[derive(Debug)]
pub(crate) struct RunGate {
    state: Mutex<Gate>,
    /// Notified when the last live run ends.
    idle: Notify,
    /// Set when live runs are to end at once. Not a token: runs look at it before each node, and that is a lock there.
    unfinished: SetOnce<()>,
    down_after: OnceLock<Duration>,
}

#[derive(Debug, Default)]
struct Gate {
    live: Slab<RunId>,
    closed_at: Option<Instant>,
    /// Runs that ended by themselves after the gate was closed.
    ended: usize,
    unfinished: Vec<RunId>,
}

impl RunGate {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), idle: Notify::new(), unfinished: SetOnce::new(), down_after: OnceLock::new() }
    }

    /// Lets a run in, until the gate is closed.
    pub(crate) fn enter(&self, id: RunId) -> Option<RunTicket<'_>> {
        let mut gate = self.lock();
        if gate.closed_at.is_some() {
            return None;
        }
        Some(RunTicket { runs: self, key: gate.live.insert(id), reached_end: false })
    }

    /// Set when live runs are to end at once.
    pub(crate) fn unfinished(&self) -> &SetOnce<()> {
        &self.unfinished
    }

    /// Lets no run in any more; says when it was first called.
    fn close(&self) -> Instant {
        *self.lock().closed_at.get_or_insert_with(Instant::now)
    }

    /// Waits until no run is live, at most until `deadline`; says whether none is.
    async fn idle_by(&self, deadline: Option<Instant>) -> bool {
        loop {
            // Registered before the count is read, or the last run could end in between, unheard.
            let mut idle = std::pin::pin!(self.idle.notified());
            idle.as_mut().enable();
            if self.lock().live.is_empty() {
                return true;
            }
            match deadline {
                None => idle.await,
                Some(deadline) => {
                    if timeout_at(deadline, idle).await.is_err() {
                        return self.lock().live.is_empty();
                    }
                }
            }
        }
    }

    fn cut_off_all(&self) {
        let mut gate = self.lock();
        if gate.unfinished.is_empty() {
            gate.unfinished = gate.live.iter().map(|(_, id)| *id).collect();
        }
        drop(gate);
        // Somebody else may have set it already.
        let _ = self.unfinished.set(());
    }

    fn report(&self) -> RunsReport {
        let gate = self.lock();
        RunsReport {
            ended: gate.ended,
            unfinished: gate
                .unfinished
                .iter()
                .filter(|id| !gate.live.iter().any(|(_, live)| live == *id))
                .copied()
                .collect(),
            still_running: gate.live.iter().map(|(_, id)| *id).collect(),
        }
    }

    /// The gate's state is counters and ids, whole after every statement: a panic elsewhere doesn't spoil it.
    fn lock(&self) -> MutexGuard<'_, Gate> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by a live run.
#[derive(Debug)]
pub(crate) struct RunTicket<'a> {
    runs: &'a RunGate,
    key: usize,
    reached_end: bool,
}

impl RunTicket<'_> {
    /// The run is over, and nothing cut it short.
    pub(crate) fn reached_end(&mut self) {
        self.reached_end = true;
    }
}

impl Drop for RunTicket<'_> {
    fn drop(&mut self) {
        let mut gate = self.runs.lock();
        let id = gate.live.remove(self.key);
        if self.reached_end {
            // It came to its end in the moment in which it was to be cut off.
            gate.unfinished.retain(|unfinished| *unfinished != id);
        }
        // Asked of what the lock guards, not of the flag, which is set a moment later.
        if gate.closed_at.is_some() && !gate.unfinished.contains(&id) {
            gate.ended += 1;
        }
        let idle = gate.live.is_empty();
        drop(gate);
        if idle {
            self.runs.idle.notify_waiters();
        }
    }
}

//! [`RunTracker`]: the runs of an app that are active, for its shutdown.

use std::{pin::pin, sync::OnceLock, time::Duration};

use slab::Slab;
use tokio::{
    sync::{Notify, SetOnce},
    time::{Instant, timeout_at},
};

use crate::{run_id::RunId, sync::Mutex};

/// The outcome of the runs that were active when the app was shut down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunsReport {
    /// The number of runs that ended on their own.
    pub ended: usize,
    /// The runs that did not end in time and were cancelled.
    pub unfinished: Vec<RunId>,
    /// The runs that did not end even after they were cancelled: their futures are held without being polled, or a node
    /// blocks its thread.
    pub still_running: Vec<RunId>,
}

/// Tracks the active runs of an app, and refuses new ones once it is closed.
#[derive(Debug)]
pub(crate) struct RunTracker {
    state: Mutex<TrackerState>,
    /// Notified when the last active run ends.
    idle: Notify,
    /// Set when a shutdown stops the active runs. It is no token, because runs check it before each node, and checking a
    /// token takes a lock.
    shutdown: SetOnce<()>,
    time_to_down: OnceLock<Duration>,
}

#[derive(Debug, Default)]
struct TrackerState {
    active: Slab<RunId>,
    closed_at: Option<Instant>,
    /// The number of runs that ended on their own after the tracker was closed.
    ended: usize,
    /// The runs that were active when the shutdown stopped them.
    stopped: Vec<RunId>,
}

impl RunTracker {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), idle: Notify::new(), shutdown: SetOnce::new(), time_to_down: OnceLock::new() }
    }

    /// Counts a run as active until the guard is dropped. Returns `None` once the tracker is closed.
    pub(super) fn start(&self, id: RunId) -> Option<RunGuard<'_>> {
        let mut state = self.state.lock();
        if state.closed_at.is_some() {
            return None;
        }
        Some(RunGuard { tracker: self, key: state.active.insert(id), reached_end: false })
    }

    /// Returns the signal that stops the active runs.
    pub(crate) fn shutdown(&self) -> &SetOnce<()> {
        &self.shutdown
    }

    /// Refuses new runs. Returns the time of the first call.
    pub(crate) fn close(&self) -> Instant {
        *self.state.lock().closed_at.get_or_insert_with(Instant::now)
    }

    /// Waits until no run is active, or until the deadline. Returns whether no run is active.
    pub(crate) async fn wait_until_idle(&self, deadline: Option<Instant>) -> bool {
        loop {
            // Enabled before the check, so that the end of the last run between the two is not missed.
            let mut idle = pin!(self.idle.notified());
            idle.as_mut().enable();
            if self.state.lock().active.is_empty() {
                return true;
            }
            match deadline {
                None => idle.await,
                Some(deadline) => {
                    if timeout_at(deadline, idle).await.is_err() {
                        return self.state.lock().active.is_empty();
                    }
                }
            }
        }
    }

    /// Stops the active runs.
    pub(crate) fn stop_all(&self) {
        let mut state = self.state.lock();
        if state.stopped.is_empty() {
            state.stopped = state.active.iter().map(|(_, id)| *id).collect();
        }
        drop(state);
        // An error means that a concurrent shutdown has set it already.
        let _ = self.shutdown.set(());
    }

    /// Returns the time that the shutdown took, which is the same for all callers.
    pub(crate) fn time_to_down(&self, started: Instant) -> Duration {
        *self.time_to_down.get_or_init(|| started.elapsed())
    }

    pub(crate) fn report(&self) -> RunsReport {
        let state = self.state.lock();
        let is_active = |id: &RunId| state.active.iter().any(|(_, active)| active == id);
        RunsReport {
            ended: state.ended,
            unfinished: state.stopped.iter().filter(|id| !is_active(id)).copied().collect(),
            still_running: state.active.iter().map(|(_, id)| *id).collect(),
        }
    }
}

/// Keeps a run counted as active.
#[derive(Debug)]
pub(super) struct RunGuard<'a> {
    tracker: &'a RunTracker,
    key: usize,
    reached_end: bool,
}

impl RunGuard<'_> {
    /// Records that the run reached `END`.
    pub(super) fn reached_end(&mut self) {
        self.reached_end = true;
    }
}

impl Drop for RunGuard<'_> {
    fn drop(&mut self) {
        let mut state = self.tracker.state.lock();
        let id = state.active.remove(self.key);
        if self.reached_end {
            // The run reached its end at the moment at which it was stopped.
            state.stopped.retain(|stopped| *stopped != id);
        }
        // Check `stopped`, not the `shutdown` signal: the signal is set after the lock is released.
        if state.closed_at.is_some() && !state.stopped.contains(&id) {
            state.ended += 1;
        }
        let is_idle = state.active.is_empty();
        drop(state);
        if is_idle {
            self.tracker.idle.notify_waiters();
        }
    }
}

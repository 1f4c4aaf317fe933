//! [`RunTracker`]: the runs of an app that are active, for its shutdown.

use std::{pin::pin, sync::OnceLock, time::Duration};

use serde::Serialize;
use slab::Slab;
use tokio::{
    sync::{Notify, SetOnce},
    time::{Instant, timeout_at},
};

use crate::{run_id::RunId, sync::Mutex};

/// The outcome of the runs that were active when the app was shut down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
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

/// Tracks the active runs of an app. Once it drains, it accepts only runs that a live task of the app starts; once it is
/// closed, none.
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
    active: Slab<ActiveRun>,
    /// The time at which draining began.
    draining_since: Option<Instant>,
    /// `true` once no run is accepted any more.
    is_closed: bool,
    /// The number of runs that were accepted.
    accepted: u64,
    /// The number of runs that ended on their own after draining began.
    ended: usize,
    /// The runs that were stopped, and ended without having reached `END`.
    unfinished: Vec<RunId>,
}

#[derive(Debug)]
struct ActiveRun {
    id: RunId,
    /// `true` once the shutdown has stopped the run.
    is_stopped: bool,
}

/// A moment at which no run was active.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Idle {
    /// The number of runs that had been accepted.
    accepted: u64,
}

impl RunTracker {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), idle: Notify::new(), shutdown: SetOnce::new(), time_to_down: OnceLock::new() }
    }

    /// Counts a run as active until the guard is dropped. Returns `None` if the tracker is closed, or if it drains and
    /// the run `is_inside` no live task of the app.
    pub(super) fn start(&self, id: RunId, is_inside: impl FnOnce() -> bool) -> Option<RunGuard<'_>> {
        let is_draining = self.state.lock().draining_since.is_some();
        // Called without the lock, because it takes that of the task manager.
        let may_start_draining = is_draining && is_inside();
        let mut state = self.state.lock();
        if state.is_closed || state.draining_since.is_some() && !may_start_draining {
            return None;
        }
        state.accepted += 1;
        let key = state.active.insert(ActiveRun { id, is_stopped: false });
        Some(RunGuard { tracker: self, key, reached_end: false })
    }

    /// Returns the signal that stops the active runs.
    pub(crate) fn shutdown(&self) -> &SetOnce<()> {
        &self.shutdown
    }

    /// Begins to drain. Returns the time of the first call.
    pub(crate) fn drain(&self) -> Instant {
        *self.state.lock().draining_since.get_or_insert_with(Instant::now)
    }

    /// Waits until no run is active, or until the deadline. Returns `None` if runs are still active then.
    pub(crate) async fn wait_until_idle(&self, deadline: Option<Instant>) -> Option<Idle> {
        loop {
            // Enabled before the check, so that the end of the last run between the two is not missed.
            let mut idle = pin!(self.idle.notified());
            idle.as_mut().enable();
            let now = self.state.lock().idle();
            if now.is_some() {
                return now;
            }
            match deadline {
                None => idle.await,
                Some(deadline) => {
                    if timeout_at(deadline, idle).await.is_err() {
                        return self.state.lock().idle();
                    }
                }
            }
        }
    }

    /// Closes the tracker if no run has been active since then. Returns whether it is closed.
    pub(crate) fn close_if_idle_since(&self, Idle { accepted }: Idle) -> bool {
        let mut state = self.state.lock();
        state.is_closed |= state.active.is_empty() && state.accepted == accepted;
        state.is_closed
    }

    /// Closes the tracker and stops the active runs.
    pub(crate) fn stop_all(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        // A second call finds no run that is not stopped yet.
        if !self.shutdown.initialized() {
            for (_, run) in &mut state.active {
                run.is_stopped = true;
            }
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
        RunsReport {
            ended: state.ended,
            unfinished: state.unfinished.clone(),
            still_running: state.active.iter().map(|(_, run)| run.id).collect(),
        }
    }
}

impl TrackerState {
    fn idle(&self) -> Option<Idle> {
        self.active.is_empty().then_some(Idle { accepted: self.accepted })
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
        let run = state.active.remove(self.key);
        // A run may reach its end at the moment at which it is stopped. Check `is_stopped`, not the `shutdown` signal: the
        // signal is set after the lock is released.
        if run.is_stopped && !self.reached_end {
            state.unfinished.push(run.id);
        } else if state.draining_since.is_some() {
            state.ended += 1;
        }
        let is_idle = state.active.is_empty();
        drop(state);
        if is_idle {
            self.tracker.idle.notify_waiters();
        }
    }
}

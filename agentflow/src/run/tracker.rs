//! [`RunTracker`]: the runs of an app that are active, for its shutdown.

use std::{cell::RefCell, future::poll_fn, ops::Deref, pin::pin, sync::OnceLock, time::Duration};

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
    /// The runs on threads that were given up for the next start, or for another process: their last commit stays.
    pub kept: Vec<RunId>,
    /// The runs that did not end even after they were cancelled: their futures are held without being polled, or a node
    /// blocks its thread.
    pub still_running: Vec<RunId>,
}

/// Tracks the active runs of an app. Once it drains, it accepts only runs that a live task of the app or a node of an active
/// run starts; once it is closed, none.
#[derive(Debug)]
pub(crate) struct RunTracker {
    state: Mutex<TrackerState>,
    /// Notified when the last active run ends.
    idle: Notify,
    /// Set when draining begins.
    draining: SetOnce<()>,
    /// Set when a shutdown stops the active runs. It is no token, because runs check it before each node, and a check of a
    /// token takes a lock.
    shutdown: SetOnce<()>,
    time_to_down: OnceLock<Duration>,
}

#[derive(Debug, Default)]
struct TrackerState {
    active: Slab<ActiveRun>,
    /// The time at which draining began.
    draining_since: Option<Instant>,
    /// Set once no run is accepted any more.
    is_closed: bool,
    /// The number of runs that were accepted.
    accepted: u64,
    /// The number of runs that ended on their own after draining began.
    ended: usize,
    /// The runs that were stopped, and ended without having reached `END`.
    unfinished: Vec<RunId>,
    /// The runs that go on in another process, or after the next start.
    kept: Vec<RunId>,
}

#[derive(Debug)]
struct ActiveRun {
    id: RunId,
    /// Set once the shutdown has stopped the run.
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
        Self {
            state: Mutex::default(),
            idle: Notify::new(),
            draining: SetOnce::new(),
            shutdown: SetOnce::new(),
            time_to_down: OnceLock::new(),
        }
    }

    /// Returns the signal that stops the active runs.
    pub(crate) fn shutdown(&self) -> &SetOnce<()> {
        &self.shutdown
    }

    /// Returns the signal that draining has begun.
    pub(crate) fn draining(&self) -> &SetOnce<()> {
        &self.draining
    }

    /// Returns whether the tracker refuses runs that neither a live task of the app nor a node of an active run starts.
    pub(crate) fn is_draining(&self) -> bool {
        self.state.lock().draining_since.is_some()
    }

    /// Polls an active run. A run that it starts meanwhile on this thread is inside it.
    pub(super) async fn polling<F: Future>(&self, run: F) -> F::Output {
        let mut run = pin!(run);
        let address = std::ptr::from_ref(self).addr();
        poll_fn(|cx| {
            let _polled = PolledRun::enter(address);
            run.as_mut().poll(cx)
        })
        .await
    }

    /// Returns whether one of the active runs is polled on this thread.
    fn is_polled_here(&self) -> bool {
        let address = std::ptr::from_ref(self).addr();
        POLLED.try_with(|polled| polled.borrow().contains(&address)).unwrap_or(false)
    }

    /// Begins to drain. Returns the time of the first call.
    pub(crate) fn drain(&self) -> Instant {
        let since = *self.state.lock().draining_since.get_or_insert_with(Instant::now);
        // An error means that an earlier call has set it already.
        let _ = self.draining.set(());
        since
    }

    /// Waits until no run is active, or until the deadline. Returns `None` if runs are still active then.
    pub(crate) async fn wait_until_idle(&self, deadline: Option<Instant>) -> Option<Idle> {
        loop {
            // The future is enabled before the check, so that the end of the last run between the two is not missed.
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
            kept: state.kept.clone(),
            still_running: state.active.iter().map(|(_, run)| run.id).collect(),
        }
    }
}

impl TrackerState {
    fn idle(&self) -> Option<Idle> {
        self.active.is_empty().then_some(Idle { accepted: self.accepted })
    }
}

thread_local! {
    /// The trackers whose runs are polled on this thread, by address, the innermost last. A tracker outlives its runs.
    static POLLED: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// A run that is polled on this thread until this is dropped.
struct PolledRun {
    is_entered: bool,
}

impl PolledRun {
    fn enter(tracker: usize) -> Self {
        // There is no such list while the thread ends.
        let is_entered = POLLED.try_with(|polled| polled.borrow_mut().push(tracker)).is_ok();
        Self { is_entered }
    }
}

impl Drop for PolledRun {
    fn drop(&mut self) {
        if self.is_entered {
            let _ = POLLED.try_with(|polled| polled.borrow_mut().pop());
        }
    }
}

/// Keeps a run counted as active.
#[derive(Debug)]
pub(super) struct RunGuard<T: Deref<Target = RunTracker>> {
    tracker: T,
    key: usize,
    reached_end: bool,
    /// Set if the run goes on in another process, or after the next start.
    is_kept: bool,
}

impl<T: Deref<Target = RunTracker>> RunGuard<T> {
    /// Counts a run as active until the guard is dropped. Returns `None` if the tracker is closed, or if it drains and
    /// the run starts in no active run and, by `is_in_a_task`, in no live task of the app.
    pub(super) fn start(tracker: T, id: RunId, is_in_a_task: impl FnOnce() -> bool) -> Option<Self> {
        let is_draining = tracker.is_draining();
        // The function is called without the lock, because it takes that of the task manager.
        let may_start_draining = is_draining && (tracker.is_polled_here() || is_in_a_task());
        let mut state = tracker.state.lock();
        if state.is_closed || state.draining_since.is_some() && !may_start_draining {
            return None;
        }
        state.accepted += 1;
        let key = state.active.insert(ActiveRun { id, is_stopped: false });
        drop(state);
        Some(Self { tracker, key, reached_end: false, is_kept: false })
    }

    /// Records that the run goes on in another process, or after the next start.
    pub(super) fn keep(&mut self) {
        self.is_kept = true;
    }

    /// Records that the run reached `END`.
    pub(super) fn reached_end(&mut self) {
        self.reached_end = true;
    }
}

impl<T: Deref<Target = RunTracker>> Drop for RunGuard<T> {
    fn drop(&mut self) {
        let mut state = self.tracker.state.lock();
        let run = state.active.remove(self.key);
        // A run may reach its end at the moment at which it is stopped. Check `is_stopped`, not the `shutdown` signal: the
        // signal is set after the lock is released.
        if self.is_kept {
            state.kept.push(run.id);
        } else if run.is_stopped && !self.reached_end {
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

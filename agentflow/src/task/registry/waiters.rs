//! Waiters: callers that wait until no more than a number of tasks live.

use std::panic::catch_unwind;

use tokio::time::Instant;

use super::{
    super::engine::{
        sync::{Handle, Notified, Sleep, sleep_until},
        task::TaskRef,
    },
    Registry,
    state::State,
};
use crate::sync::guard_waker;

/// Keeps a waiter registered until it is dropped.
pub(super) struct WaitGuard<'a>(&'a Registry);

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        let waiters = &mut self.0.lock().waiters;
        waiters.count -= 1;
        if waiters.count == 0 {
            waiters.wake_at = 0;
        }
    }
}

impl Registry {
    /// Registers a waiter that is woken when no more than `wake_at` tasks live.
    pub(super) fn register_waiter(&self, wake_at: usize) -> WaitGuard<'_> {
        let waiters = &mut self.lock().waiters;
        waiters.count += 1;
        waiters.wake_at = waiters.wake_at.max(wake_at);
        WaitGuard(self)
    }

    /// Returns a future of the next change after this call, whenever it is first polled.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Wakes the waiters.
    pub(super) fn notify(&self) {
        self.changed.notify_waiters();
    }

    /// Waits for the change until the deadline; returns `false` if that passed first.
    ///
    /// The timer is that of the runtime of this call, or else that of the manager's, so the wait works on any executor
    /// if the manager was made within a runtime. Without either there is no timer, and the deadline counts as passed.
    pub(super) async fn changed_before(&self, changed: Notified<'_>, deadline: Option<Instant>) -> bool {
        let Some(deadline) = deadline else {
            guard_waker(changed).await;
            return true;
        };
        if deadline <= self.now_of_caller() {
            return false;
        }
        let Some(sleep) = self.timer(deadline) else {
            return false;
        };
        tokio::select! {
            biased;
            () = guard_waker(changed) => true,
            () = sleep => false,
        }
    }

    /// Creates a timer of this call's runtime, or else of the manager's. The former goes first, because tasks that
    /// block all threads of their own runtime stop its clock too.
    fn timer(&self, deadline: Instant) -> Option<Sleep> {
        let runtimes = [Handle::try_current().ok(), self.runtime.clone()];
        runtimes.into_iter().flatten().find_map(|runtime| {
            let _entered = runtime.enter();
            // tokio panics where the runtime's timer is not enabled.
            catch_unwind(|| sleep_until(deadline)).ok()
        })
    }

    /// Waits until only the tasks in `except` live, or until the deadline; returns whether they are the only ones.
    pub(crate) async fn wait_for_others(&self, except: &[TaskRef], deadline: Option<Instant>) -> bool {
        self.wait_until(deadline, except.len(), |state| state.live_except(except) == 0).await
    }

    /// Waits until `done` returns `true`, or until the deadline; returns whether it did. `done` is called when no more
    /// than `wake_at` tasks live.
    pub(crate) async fn wait_until(
        &self,
        deadline: Option<Instant>,
        wake_at: usize,
        mut done: impl FnMut(&State) -> bool,
    ) -> bool {
        let _waiter = self.register_waiter(wake_at);
        loop {
            // The future is created before the check, so that an end between the two is not missed.
            let changed = self.changed();
            if done(&self.lock()) {
                return true;
            }
            if !self.changed_before(changed, deadline).await {
                return done(&self.lock());
            }
        }
    }
}

//! Waiters: callers that wait until no more than a number of tasks live.

use std::panic::catch_unwind;

use tokio::time::Instant;

use super::{
    super::{
        engine::sync::{Handle, Notified, Sleep, sleep_until},
        filter::Selection,
        id::TaskId,
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

    /// Waits until none of the selected tasks is left that ends without the callers in `except`, or until the deadline;
    /// returns whether none is left. See [`State::awaited`].
    pub(crate) async fn wait_for(&self, selection: &Selection, except: &[TaskId], deadline: Option<Instant>) -> bool {
        match selection {
            Selection::All => {
                let wake_at = self.wake_at(except);
                self.wait_until(deadline, wake_at, |state| state.count_awaited(except) == 0).await
            }
            Selection::Ids(ids) => {
                // The tasks beyond `left` need not be looked at again, so that each end is checked once.
                let mut left = ids.len();
                let done = |state: &mut State| {
                    let ended = |id| state.awaited(&Selection::Ids(vec![id]), except).next().is_none();
                    while left > 0 && ended(ids[left - 1]) {
                        left -= 1;
                    }
                    left == 0
                };
                self.wait_until(deadline, usize::MAX, done).await
            }
            Selection::Named(_) | Selection::OfRun(_) | Selection::Keyed(_) => {
                let done = |state: &mut State| {
                    state.index_for(selection);
                    state.awaited(selection, except).next().is_none()
                };
                self.wait_until(deadline, usize::MAX, done).await
            }
        }
    }

    /// Returns the largest number of live tasks at which a wait that is called in the tasks in `except` may be over.
    pub(super) fn wake_at(&self, except: &[TaskId]) -> usize {
        let state = self.lock();
        let has_key = |task: &TaskId| state.get(*task).is_some_and(|task| task.spec.key().is_some());
        // Any number of tasks may be queued behind the key of a caller.
        if except.iter().any(has_key) { usize::MAX } else { except.len() }
    }

    /// Waits until `done` returns `true`, or until the deadline; returns whether it did. `done` is called when no more
    /// than `wake_at` tasks live.
    pub(crate) async fn wait_until(
        &self,
        deadline: Option<Instant>,
        wake_at: usize,
        mut done: impl FnMut(&mut State) -> bool,
    ) -> bool {
        let _waiter = self.register_waiter(wake_at);
        loop {
            // The future is created before the check, so that an end between the two is not missed.
            let changed = self.changed();
            if done(&mut self.lock()) {
                return true;
            }
            if !self.changed_before(changed, deadline).await {
                return done(&mut self.lock());
            }
        }
    }
}

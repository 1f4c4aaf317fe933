//! Waiting until few enough tasks live.

use std::{panic::catch_unwind, time::Duration};

use tokio::time::Instant;

use super::{Registry, State};
use crate::task::{
    record::TaskRef,
    sync::{Handle, Notified, Sleep, sleep_until},
};

/// Who waits, so that an end wakes nobody who would only find that there are more to come.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) count: usize,
    /// The largest number of live tasks at which somebody wants to be woken.
    pub(super) at: usize,
}

/// Somebody waits for as long as this lives.
pub(in crate::task) struct WaitGuard<'a>(&'a Registry);

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        let waiting = &mut self.0.lock().waiting;
        waiting.count -= 1;
        if waiting.count == 0 {
            waiting.at = 0;
        }
    }
}

impl Registry {
    /// To be held while waiting for no more than `at` live tasks.
    pub(in crate::task) fn waiting(&self, at: usize) -> WaitGuard<'_> {
        let waiting = &mut self.lock().waiting;
        waiting.count += 1;
        waiting.at = waiting.at.max(at);
        WaitGuard(self)
    }

    /// Resolves at the next change after this call, whenever it is first polled.
    pub(in crate::task) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    pub(in crate::task) fn notify(&self) {
        self.changed.notify_waiters();
    }

    /// Waits for the change, but not beyond the deadline; false if that passed first.
    ///
    /// Works on any executor if the manager was made within a runtime, and by the clock of the runtime that it is called
    /// in if it is called in one: that of the tasks stands still when they block its threads. Without any runtime there is
    /// no timer, and the deadline counts as passed.
    pub(in crate::task) async fn changed_before(&self, changed: Notified<'_>, deadline: Option<Instant>) -> bool {
        let Some(deadline) = deadline else {
            changed.await;
            return true;
        };
        if deadline <= Instant::now() {
            return false;
        }
        let Some(sleep) = self.timer(deadline) else {
            return false;
        };
        tokio::select! {
            biased;
            () = changed => true,
            () = sleep => false,
        }
    }

    /// A timer of the runtime here, which may go on where all threads of the tasks' runtime are blocked; or else of
    /// theirs. A runtime without a timer panics when it is asked for one.
    fn timer(&self, deadline: Instant) -> Option<Sleep> {
        let runtimes = [Handle::try_current().ok(), self.runtime.clone()];
        runtimes.into_iter().flatten().find_map(|runtime| {
            let _entered = runtime.enter();
            catch_unwind(|| sleep_until(deadline)).ok()
        })
    }

    /// Waits until only the tasks in `except` live, but not beyond the deadline; says whether it came to that.
    pub(in crate::task) async fn wait_for_others(&self, except: &[TaskRef], deadline: Option<Instant>) -> bool {
        self.wait_until(deadline, except.len(), |state| state.live_except(except) == 0).await
    }

    /// Waits until `done` holds, but not beyond the deadline; says whether it does. Looks when no more than `at`
    /// tasks live.
    pub(in crate::task) async fn wait_until(
        &self,
        deadline: Option<Instant>,
        at: usize,
        mut done: impl FnMut(&State) -> bool,
    ) -> bool {
        let _waiting = self.waiting(at);
        loop {
            // Made before the check: an end between the two is not missed.
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

/// `None` if the bound is further off than the clock can tell: that is no bound.
pub(in crate::task) fn deadline(bound: Option<Duration>) -> Option<Instant> {
    bound.and_then(|bound| Instant::now().checked_add(bound))
}

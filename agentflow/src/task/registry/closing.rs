//! Closing: drain, cancel, grace period, abort, report.
//!
//! There is no leader. Every caller runs the same steps on the shared state, so that any of them may be dropped
//! half-way, or be called from within a task, and the others lose nothing.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    super::{
        engine::{
            log,
            task::{StopRequest, TaskRecord},
        },
        id::TaskId,
        options::OnClose,
        report::CloseReport,
        stats::OutcomeCounts,
    },
    ABORT_MARGIN, Registry,
    event_buffer::Delivery,
    infos, mark_all,
    state::{Closing, ManagerPhase, ShutdownWave, State},
};

impl Registry {
    /// Enters the draining phase, ends the delays of tasks, and lowers the deadline of draining to this one if it is earlier.
    pub(crate) fn begin_closing(&self, deadline: Option<Instant>) {
        let (now, now_of_tasks) = (self.now_of_caller(), self.now());
        let delayed = {
            let mut state = self.lock();
            state.phase = state.phase.max(ManagerPhase::Draining);
            let before = state.outcomes;
            let closing = state.closing.get_or_insert_with(|| Closing {
                began: now,
                before,
                deadline: None,
                grace_over: [None; 2],
                unfinished: Vec::new(),
                elapsed: None,
            });
            closing.deadline = [closing.deadline, deadline].into_iter().flatten().min();
            state.end_all_delays(now_of_tasks)
        };
        for task in delayed {
            match task.spec.extras().on_close {
                OnClose::Run => task.wake(),
                OnClose::Drop => task.request_stop(StopRequest::Cancel),
            }
        }
        // A caller that waits for a later deadline must see the earlier one.
        self.notify();
        self.notify_phase_changed();
    }

    /// Runs all steps of a close that [has begun](Self::begin_closing), and returns the report. The tasks in `except`,
    /// in one of which the close is called, are left alone.
    pub(crate) async fn close(&self, except: &[TaskId]) -> CloseReport {
        if !self.drain_before_deadline(except).await {
            self.stop_wave(except, ShutdownWave::First).await;
            self.stop_wave(except, ShutdownWave::Last).await;
        }
        self.close_report()
    }

    /// Wakes the waiting spawns, which are refused now, ends the watchers' streams if no task lives, and logs the limits
    /// that no task can use any more.
    pub(super) fn notify_closed(&self) {
        let (over, unused) = {
            let mut state = self.lock();
            (state.end_events_if_over(), state.take_unused_limits())
        };
        over.deliver();
        if let Some(unused) = unused {
            log::unused_limits(&unused.names, &unused.known);
        }
        self.notify_phase_changed();
    }

    /// Waits until only the tasks in `except` live, and those that are queued behind a key of theirs, or until the
    /// deadline, and closes the manager; returns whether only they live.
    ///
    /// Tasks that wait for the events of the others would wait for ever, so their streams end when only they are left.
    async fn drain_before_deadline(&self, except: &[TaskId]) -> bool {
        let mut in_time = true;
        let _waiter = self.register_waiter(self.wake_at(except));
        loop {
            let changed = self.changed();
            let (deadline, over) = {
                let mut state = self.lock();
                let drained = state.live_except(except) == state.queued_behind(except);
                if drained || !in_time {
                    // Close under the lock that found the registry empty, so that no task is admitted in between.
                    state.phase = ManagerPhase::Closed;
                    drop(state);
                    self.notify_closed();
                    return drained;
                }
                let over = if state.count_awaited(except) == 0 { state.end_events() } else { Delivery::default() };
                (state.closing.as_ref().and_then(|closing| closing.deadline), over)
            };
            over.deliver();
            in_time = self.changed_before(changed, deadline).await;
        }
    }

    /// Cancels the tasks of a wave, waits for them until their grace period is over, and aborts the rest. A second
    /// caller finds no task that has not been cancelled already, and waits as long as the first.
    async fn stop_wave(&self, except: &[TaskId], wave: ShutdownWave) {
        let grace_over = self.cancel_wave(except, wave);
        if self.wait_for_wave(except, wave, grace_over).await {
            return;
        }
        let in_wave = |task: &&Arc<TaskRecord>| ShutdownWave::of(task) == wave;
        let overdue: Vec<_> = self.lock().tasks_except(except).filter(in_wave).cloned().collect();
        for task in overdue {
            task.request_stop(StopRequest::EndGrace);
        }
        let dropped = grace_over.and_then(|over| over.checked_add(ABORT_MARGIN));
        self.wait_for_wave(except, wave, dropped).await;
    }

    /// Cancels the tasks of a wave, and returns when their grace period is over.
    fn cancel_wave(&self, except: &[TaskId], wave: ShutdownWave) -> Option<Instant> {
        let now = self.now_of_caller();
        let (cancelled, grace_over) = {
            let mut state = self.lock();
            let is_new = |task: &&Arc<TaskRecord>| ShutdownWave::of(task) == wave && task.mark_unfinished();
            let cancelled: Vec<_> = state.tasks_except(except).filter(is_new).cloned().collect();
            mark_all(&cancelled, StopRequest::Cancel);
            let grace = self.longest_grace(&cancelled);
            let grace_over = state.closing.as_mut().and_then(|closing| {
                let over = &mut closing.grace_over[wave as usize];
                if !cancelled.is_empty() {
                    *over = now.checked_add(grace);
                }
                *over
            });
            (cancelled, grace_over)
        };
        for task in cancelled {
            task.request_stop(StopRequest::Cancel);
        }
        grace_over
    }

    /// Waits until no task of the wave lives, or until the deadline; returns whether none lives.
    async fn wait_for_wave(&self, except: &[TaskId], wave: ShutdownWave, until: Option<Instant>) -> bool {
        let last = |state: &State| state.cancel_last_except(except);
        match wave {
            ShutdownWave::First => {
                let wake_at = except.len() + last(&self.lock());
                self.wait_until(until, wake_at, |state| state.live_except(except) == last(state)).await
            }
            // Check at every end: tasks of the first wave that ignored their abort may still live, so the number of
            // live tasks does not show if the last wave has ended.
            ShutdownWave::Last => self.wait_until(until, usize::MAX, |state| last(state) == 0).await,
        }
    }

    fn close_report(&self) -> CloseReport {
        let now = self.now_of_caller();
        let (outcomes, unfinished, elapsed, live) = {
            let mut state = self.lock();
            let until_now = state.outcomes;
            // The tasks are read under the same lock as the outcomes, so that each task is in one of the two.
            let live: Vec<_> = state.tasks().cloned().collect();
            let (outcomes, unfinished, elapsed) = match &mut state.closing {
                Some(closing) => {
                    let elapsed = *closing.elapsed.get_or_insert_with(|| now.saturating_duration_since(closing.began));
                    (until_now - closing.before, closing.unfinished.clone(), elapsed)
                }
                // Unreachable: `begin_closing` sets it.
                None => (OutcomeCounts::default(), Vec::new(), Duration::ZERO),
            };
            (outcomes, unfinished, elapsed, live)
        };
        CloseReport { outcomes, unfinished, still_running: infos(&live, self.now()), elapsed }
    }
}

//! [`Registry`]: the live tasks of one manager, and the outcomes of those that ended.
//!
//! One mutex guards the phase, the live tasks and the counters, so that a spawn is either counted or refused, and the
//! numbers agree at any moment. Neither user code nor tokio's code runs while it is held.

pub(super) mod admission;
mod closing;
mod event_buffer;
pub(super) mod event_reader;
mod eviction;
mod history;
mod live;
mod orphans;
mod run_queue;
mod state;
mod waiters;

use std::{
    fmt,
    sync::{Arc, OnceLock, atomic::Ordering},
    time::Duration,
};

use event_buffer::Delivery;
use state::is_beside;
pub(super) use state::{ManagerPhase, State};
use tokio::time::Instant;

use super::{
    durable::DurableSink,
    engine::{
        log,
        metrics::{Change, Metrics},
        sync::{AtomicBool, Handle, Mutex, MutexGuard, Notify},
        task::{StopRequest, TaskEnd, TaskRecord, TaskResult},
    },
    error::{SpawnError, TaskError},
    event::TaskEvent,
    filter::Selection,
    id::TaskId,
    info::{FinishedTask, TaskInfo},
    options::TaskManagerOptions,
    outcome::TaskOutcome,
    progress::TaskProgress,
};
use crate::{error::AttemptTimedOut, panics::catch_panic};

/// The time that a wait goes on after the grace period. Tasks that ignored their cancellation are aborted when the
/// grace period is over, and this is the time for them to be dropped.
pub(super) const ABORT_MARGIN: Duration = Duration::from_millis(100);

pub(super) struct Registry {
    state: Mutex<State>,
    /// Notified when a task ends that a caller waits for, and when a close gets an earlier deadline.
    changed: Notify,
    /// Notified of each slot that becomes free.
    slot_freed: Notify,
    /// Held by the waiting spawn that gets the next slot. The lock is fair, so the others follow in their order.
    spawn_queue: tokio::sync::Mutex<()>,
    /// Notified when the manager begins to drain, and when it is closed.
    phase_changed: Notify,
    /// Set while there may be a watcher to send events to.
    is_watched: AtomicBool,
    metrics: Metrics,
    /// The destination of durable tasks, if the manager's app has a store.
    pub(super) durable: OnceLock<Arc<dyn DurableSink>>,
    pub(super) runtime: Option<Handle>,
    pub(super) options: TaskManagerOptions,
}

/// The effects of the removal of a task on other tasks and on callers.
#[must_use = "`complete_removal` wakes the tasks and the callers that wait"]
struct RemovalEffects {
    next: Vec<Arc<TaskRecord>>,
    over: Delivery,
    is_awaited: bool,
    has_free_slot: bool,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("state", &self.state).field("options", &self.options).finish_non_exhaustive()
    }
}

impl Registry {
    pub(super) fn new(options: TaskManagerOptions) -> Self {
        Self {
            state: Mutex::new(State::new(&options)),
            changed: Notify::new(),
            slot_freed: Notify::new(),
            spawn_queue: tokio::sync::Mutex::new(()),
            phase_changed: Notify::new(),
            is_watched: AtomicBool::new(false),
            metrics: Metrics::default(),
            durable: OnceLock::new(),
            runtime: Handle::try_current().ok(),
            options,
        }
    }

    /// Returns the time on the clock that times the tasks: the clock of the manager's runtime, or the caller's clock if
    /// the manager has no runtime.
    pub(super) fn now(&self) -> Instant {
        self.runtime.as_ref().map_or_else(Instant::now, now_in)
    }

    /// Returns the time on the clock that times a waiting caller: the clock of the caller's runtime, or else of the
    /// manager's.
    pub(super) fn now_of_caller(&self) -> Instant {
        match (Handle::try_current(), &self.runtime) {
            (Err(_), Some(runtime)) => now_in(runtime),
            _ => Instant::now(),
        }
    }

    /// Returns the time at which `bound` is over for a waiting caller; `None` if there is no bound, or if that time is
    /// beyond the range of the clock.
    pub(super) fn deadline_of_caller(&self, bound: Option<Duration>) -> Option<Instant> {
        bound.and_then(|bound| self.now_of_caller().checked_add(bound))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Counts and logs a refused spawn.
    pub(super) fn reject(&self, name: &str, why: SpawnError) -> SpawnError {
        self.lock().rejected += 1;
        log::rejected(name, &why);
        self.metrics.record(name, Change::Rejected(why.as_str()));
        why
    }

    /// Reports that a task was spawned, unless that was reported already.
    ///
    /// A task is reported only when the runtime has taken it, because the spawn may fail until then.
    pub(super) fn task_accepted(&self, task: &Arc<TaskRecord>) {
        task.accept(|| self.report_spawn(task));
    }

    fn report_spawn(&self, task: &Arc<TaskRecord>) {
        if let Some(origin) = &task.origin {
            // A run's watcher wakes the reader of its stream.
            catch_panic(|| origin.report_start(&task.spec.name, task.id));
        }
        if let Some(tasks) = task.run_tasks() {
            tasks.add(task);
        }
        self.emit(task, TaskEvent::Spawned);
        self.metrics.record(&task.spec.name, Change::Spawned);
    }

    /// Ends the delay of a task, which may run now or is queued.
    pub(super) fn delay_over(&self, task: &TaskRecord) {
        let now = self.now();
        self.lock().end_delay(task, now);
    }

    /// Begins the first attempt of a task.
    pub(super) fn task_started(&self, task: &Arc<TaskRecord>) {
        let extras = task.spec.extras();
        if extras.is_blocking {
            let mut state = self.lock();
            state.awaiting_thread -= usize::from(task.awaits_thread());
            task.begin();
        } else {
            task.begin();
        }
        if extras.idle_timeout.is_some() {
            task.beat(self.now(), None);
            // Wake the supervisor of a blocking task: the idle timeout applies from now on.
            if extras.is_blocking {
                task.wake();
            }
        }
        self.emit(task, TaskEvent::Started);
        if cfg!(feature = "metrics") {
            let waited = self.now().saturating_duration_since(task.queued_since());
            self.metrics.record(&task.spec.name, Change::Started { waited });
        }
    }

    /// Reports a failed attempt that will be followed by another one.
    pub(super) fn attempt_failed(&self, task: &Arc<TaskRecord>, attempt: u32, error: &TaskError, retry_in: Duration) {
        let error = match error {
            // The text of a `TaskError` is about the task as a whole; here only an attempt timed out.
            TaskError::TimedOut { after, .. } => AttemptTimedOut { after: *after }.to_string().into(),
            error => error.text().unwrap_or_default(),
        };
        if task.spec.extras().idle_timeout.is_some() {
            // The task can't send a heartbeat during the pause, so the pause counts as one.
            let now = self.now();
            task.beat(now.checked_add(retry_in).unwrap_or(now), None);
        }
        log::attempt_failed(task, attempt, &error, retry_in);
        self.emit(task, |task| TaskEvent::AttemptFailed { task, attempt, error, retry_in });
    }

    /// Begins another attempt of a task, and returns its number.
    pub(super) fn attempt_started(&self, task: &TaskRecord) -> u32 {
        self.lock().retries += 1;
        self.metrics.record(&task.spec.name, Change::Retried);
        if task.spec.extras().idle_timeout.is_some() {
            task.beat(self.now(), None);
        }
        task.begin_attempt()
    }

    /// Reports the progress of a task to its run and to the watchers.
    pub(super) fn task_progressed(&self, task: &Arc<TaskRecord>, progress: Arc<TaskProgress>) {
        if let Some(origin) = &task.origin {
            let is_live = || !task.has_ended();
            // A run's watcher wakes the reader of its stream.
            catch_panic(|| origin.report_progress(&task.spec.name, task.id, &progress, &is_live));
        }
        self.emit(task, |task| TaskEvent::Progress(task.with_progress(progress)));
    }

    /// Removes a task that has ended, lets queued tasks run, and reports the end.
    ///
    /// The record, the counters and the handle change together, under the lock: a caller that finds the task gone also
    /// finds its handle ready, and vice versa. The metrics are recorded first, like the log line, because a caller that
    /// waited for the task may end the process at once.
    pub(super) fn task_ended(&self, task: &Arc<TaskRecord>, end: TaskEnd, result: Option<TaskResult>) {
        let (outcome, age) = (end.outcome, end.age());
        self.metrics.record(&task.spec.name, Change::Ended { outcome, age });
        let mut state = self.lock();
        let remains = task.set_end(end, result);
        let (removed, next) = state.remove(task.id).unzip();
        state.outcomes.count(outcome);
        if let Some(closing) = &mut state.closing {
            closing.record(task);
        }
        let forgotten = removed.and_then(|removed| state.history.add(removed, outcome));
        let ended = state.publish(|| FinishedTask::of(task).map(TaskEvent::Ended));
        let effects = self.removal_effects(&mut state, next.unwrap_or_default());
        drop(state);

        // The record is dropped outside the lock, because it may hold user data.
        drop(forgotten);
        ended.deliver();
        self.complete_removal(effects, || {
            if let Some(origin) = &task.origin {
                catch_panic(|| origin.report_end(&task.spec.name, task.id, outcome));
            }
            if let Some(tasks) = task.run_tasks() {
                tasks.remove(task);
            }
            remains.finish();
        });
    }

    /// Removes a task that the runtime has refused, as if it had never been admitted.
    pub(super) fn task_refused(&self, task: &Arc<TaskRecord>) {
        let mut state = self.lock();
        // The record gets an end too: a caller that has found the task meanwhile must not wait for it.
        let end = TaskEnd::new(TaskOutcome::Aborted, Duration::ZERO, None, None);
        let remains = task.set_end(end, None);
        let next = state.remove(task.id).map(|(_, next)| next);
        let effects = self.removal_effects(&mut state, next.unwrap_or_default());
        drop(state);
        self.complete_removal(effects, || remains.finish());
    }

    /// Returns the effects of the removal of a task, for the caller to complete outside the lock.
    fn removal_effects(&self, state: &mut State, next: Vec<Arc<TaskRecord>>) -> RemovalEffects {
        RemovalEffects {
            next,
            over: state.end_events_if_over(),
            is_awaited: state.waiters.count > 0 && state.live() <= state.waiters.wake_at,
            has_free_slot: state.has_free_slot(&self.options),
        }
    }

    /// Wakes the tasks that waited for the removal of a task, calls `report`, and then wakes the callers that waited.
    fn complete_removal(&self, effects: RemovalEffects, report: impl FnOnce()) {
        for task in effects.next {
            task.wake();
        }
        effects.over.deliver();
        report();
        if effects.is_awaited {
            self.notify();
        }
        if effects.has_free_slot {
            self.slot_freed.notify_one();
        }
    }

    /// Returns the selected live tasks, oldest first. The lock is held only to find them.
    pub(super) fn infos(&self, selection: &Selection) -> Vec<TaskInfo> {
        let tasks: Vec<_> = self.lock().select(selection).cloned().collect();
        infos(&tasks, self.now())
    }

    /// Returns the selected live tasks that a wait in the tasks in `except` waits for, oldest first.
    pub(super) fn awaited(&self, selection: &Selection, except: &[TaskId]) -> Vec<TaskInfo> {
        let tasks: Vec<_> = self.lock().awaited(selection, except).cloned().collect();
        infos(&tasks, self.now())
    }

    /// Cancels the selected live tasks besides those in `except`, and returns them, oldest first.
    pub(super) fn cancel(&self, selection: &Selection, except: &[TaskId]) -> Vec<Arc<TaskRecord>> {
        let tasks: Vec<_> = {
            let mut state = self.lock();
            let tasks: Vec<_> = state.select(selection).filter(|task| is_beside(task, except)).cloned().collect();
            mark_all(&tasks, StopRequest::Cancel);
            tasks
        };
        for task in &tasks {
            task.request_stop(StopRequest::Cancel);
        }
        tasks
    }

    /// Returns the longest time that one of these tasks may take to end when it is cancelled.
    pub(super) fn longest_grace(&self, tasks: &[Arc<TaskRecord>]) -> Duration {
        tasks.iter().map(|task| task.spec.grace(self.options.grace_period)).max().unwrap_or_default()
    }

    /// Returns whether events are buffered for a watcher.
    #[cfg(test)]
    pub(crate) fn is_watched(&self) -> bool {
        // Acquire: as in `emit`.
        self.is_watched.load(Ordering::Acquire) && self.lock().events.is_some()
    }

    /// Adds an event of a live task for the watchers, if there are any, without waiting for them.
    pub(super) fn emit(&self, task: &Arc<TaskRecord>, event: impl FnOnce(TaskInfo) -> TaskEvent) {
        // Acquire: pairs with the stores below and in `subscribe`. A stale `true` is corrected under the lock; a stale
        // `false` is possible only for an event that is concurrent with the subscription, and may be missed.
        if !self.is_watched.load(Ordering::Acquire) {
            return;
        }
        let now = self.now();
        let (delivery, unwatched) = {
            let mut state = self.lock();
            if state.events.as_ref().is_some_and(|events| events.has_readers()) {
                // `Ended` is the last event of a task, even if another thread still reports progress for it.
                let event = || (!task.has_ended()).then(|| event(TaskInfo::new(task, now)));
                (state.publish(event), None)
            } else {
                // Release: the lock orders this store with that in `subscribe`.
                self.is_watched.store(false, Ordering::Release);
                let unwatched = state.events.take();
                state.event_sequence = unwatched.as_ref().map_or(state.event_sequence, |events| events.next_sequence());
                (Delivery::default(), unwatched)
            }
        };
        // The buffer is dropped outside the lock, because its records may hold user data.
        drop(unwatched);
        delivery.deliver();
    }
}

/// Returns the time on the clock of a runtime. A paused clock is visible only within its runtime.
pub(super) fn now_in(runtime: &Handle) -> Instant {
    let _entered = runtime.enter();
    Instant::now()
}

/// Returns snapshots of these tasks.
fn infos(tasks: &[Arc<TaskRecord>], now: Instant) -> Vec<TaskInfo> {
    tasks.iter().map(|task| TaskInfo::new(task, now)).collect()
}

/// Records the request for all of these tasks. The caller holds the lock, so that the end of one of them cannot start
/// another.
fn mark_all(tasks: &[Arc<TaskRecord>], request: StopRequest) {
    for task in tasks {
        task.mark_stop_requested(request);
    }
}

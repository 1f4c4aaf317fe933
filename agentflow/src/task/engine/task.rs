//! [`TaskRecord`]: the shared state of one task, from its spawn until the last reference to it is dropped.

use std::{
    any::Any,
    borrow::Cow,
    sync::{Arc, OnceLock, atomic::Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};

use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        id::TaskId,
        options::{OnClose, OnDuplicateKey, OnRunEnd},
        origin::TaskOrigin,
        outcome::{TaskOutcome, TimeoutKind},
        progress::TaskProgress,
    },
    ancestors::Ancestors,
    run_tasks::RunTasks,
    sync::{AtomicBool, AtomicU8, AtomicU32, Mutex, Once},
};
use crate::{panics::catch_panic, run_id::RunId};

/// A task's own fields for the logs, in the order in which they were set.
pub(crate) type Fields = Box<[(Cow<'static, str>, Value)]>;

/// The settings of a task, fixed when it is spawned.
#[derive(Debug)]
pub(crate) struct TaskSpec {
    pub(crate) name: Cow<'static, str>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) context: Fields,
    /// Present if the task listens to its own cancellation.
    pub(crate) token: Option<CancellationToken>,
    /// In a box because most tasks have none of them; read with [`extras`](Self::extras).
    pub(crate) extras: Option<Box<TaskExtras>>,
}

/// The settings that few tasks have.
#[derive(Debug, Default)]
pub(crate) struct TaskExtras {
    pub(crate) key: Option<KeySetting>,
    /// The time from the spawn until the task may begin; never zero.
    pub(crate) delay: Option<Duration>,
    pub(crate) on_close: OnClose,
    /// The moment at which the delay was over.
    pub(crate) delay_over: OnceLock<Instant>,
    pub(crate) queue_timeout: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) grace_period: Option<Duration>,
    pub(crate) cancel_last: bool,
    /// Set if the task runs on a thread for blocking work, and so can't be dropped while it runs.
    pub(crate) is_blocking: bool,
    pub(crate) on_run_end: OnRunEnd,
    /// The tasks that spawned this one, directly or not; `None` if no task did.
    pub(crate) ancestors: Option<Arc<Ancestors>>,
}

/// The key of a task that has one.
#[derive(Debug)]
pub(crate) struct KeySetting {
    pub(crate) key: TaskKey,
    pub(crate) on_duplicate: OnDuplicateKey,
    /// The task that replaced this one, such as `reindex #12`.
    pub(crate) replaced_by: OnceLock<Arc<str>>,
}

/// A key within its scope.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TaskKey {
    /// The scope; that of [`TaskBuilder::key`](crate::task::TaskBuilder::key) is set to the task's name at its spawn,
    /// when the name is known.
    pub(crate) scope: Option<Cow<'static, str>>,
    pub(crate) key: Arc<str>,
}

/// The shared state of one task. The registry, its supervisor, its handle and the snapshots of it hold one each.
#[derive(Debug)]
pub(crate) struct TaskRecord {
    pub(crate) id: TaskId,
    pub(crate) spec: TaskSpec,
    pub(crate) origin: Option<Arc<TaskOrigin>>,
    pub(crate) spawned: Instant,
    /// A [`StopRequest`].
    stop_request: AtomicU8,
    /// A [`RunPermit`].
    permit: AtomicU8,
    /// Completed when it is decided and reported whether the runtime has taken the task.
    acceptance: Once,
    /// Set if the runtime has not taken the task.
    refused: AtomicBool,
    /// Set when a close cancels this task because its bound is over.
    unfinished: AtomicBool,
    /// Set when the handle was dropped.
    handle_dropped: AtomicBool,
    /// Set when the task no longer counts towards `max_tasks`, though it has not ended.
    slot_released: AtomicBool,
    /// The number of the current attempt; zero until the task begins to run.
    attempt: AtomicU32,
    status: Mutex<TaskStatus>,
}

#[derive(Debug)]
enum TaskStatus {
    Live {
        /// The waker of the supervisor, once it has been found waiting.
        waker: Option<Waker>,
        heartbeat: Option<Box<Heartbeat>>,
        /// The waker of the handle, once it was polled.
        handle: Option<Waker>,
    },
    Ended {
        end: TaskEnd,
        /// The progress of the last attempt.
        progress: Option<Arc<TaskProgress>>,
        /// The result, until the handle takes it; absent if there was no handle any more.
        result: Option<TaskResult>,
    },
}

/// A `Result<T, TaskError>`, whose `T` only the task's work and its handle know.
///
/// It is in a box, so that the record of a task that ended does not occupy the memory of its value.
pub(crate) type TaskResult = Box<dyn Any + Send>;

/// The work that the end of a task leaves to do outside the registry's lock.
#[derive(Debug)]
#[must_use = "the handle is woken by `finish`"]
pub(crate) struct Remains {
    status: TaskStatus,
    unread: Option<TaskResult>,
}

impl Remains {
    /// Wakes the handle, and drops what the task does not need any more.
    pub(crate) fn finish(self) {
        let Self { status, unread } = self;
        if let Some(result) = unread {
            catch_panic(|| drop(result));
        }
        if let TaskStatus::Live { waker, handle, .. } = status {
            // The waker may hold the last reference to the runtime's memory of the task.
            catch_panic(|| drop(waker));
            if let Some(waker) = handle {
                catch_panic(|| waker.wake());
            }
        }
    }
}

/// The last heartbeat of a task, and the progress that it reported.
#[derive(Debug)]
struct Heartbeat {
    progress: Option<Arc<TaskProgress>>,
    last: Instant,
}

/// Permission for a task to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum RunPermit {
    /// The task waits for its delay to end.
    Delayed,
    /// The task is queued.
    Pending,
    /// The task was queued, and may run now.
    AfterQueue,
    /// The task never had to be queued.
    AtOnce,
}

/// A request to stop a task. A later request can only strengthen an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum StopRequest {
    None,
    Cancel,
    /// End the grace period of a task that was cancelled, which its supervisor may not have seen yet.
    EndGrace,
    /// Drop the task without a grace period.
    Abort,
    /// Drop the task to make room for another one.
    Evict,
}

/// The end of a task.
#[derive(Clone, Debug)]
pub(crate) struct TaskEnd {
    pub(crate) outcome: TaskOutcome,
    /// In nanoseconds, of which 64 bits are enough for centuries; a `Duration` would make each live task larger.
    age: u64,
    pub(crate) error: Option<Arc<str>>,
    /// The timeout that was over, if one was.
    pub(crate) limit: Option<TimeoutKind>,
}

impl TaskEnd {
    pub(crate) fn new(
        outcome: TaskOutcome,
        age: Duration,
        error: Option<Arc<str>>,
        limit: Option<TimeoutKind>,
    ) -> Self {
        Self { outcome, age: u64::try_from(age.as_nanos()).unwrap_or(u64::MAX), error, limit }
    }

    pub(crate) fn age(&self) -> Duration {
        Duration::from_nanos(self.age)
    }
}

impl TaskSpec {
    /// Returns the settings that few tasks have, or their defaults.
    pub(crate) fn extras(&self) -> &TaskExtras {
        static NONE: TaskExtras = TaskExtras {
            key: None,
            delay: None,
            on_close: OnClose::Run,
            delay_over: OnceLock::new(),
            queue_timeout: None,
            idle_timeout: None,
            grace_period: None,
            cancel_last: false,
            is_blocking: false,
            on_run_end: OnRunEnd::Detach,
            ancestors: None,
        };
        self.extras.as_deref().unwrap_or(&NONE)
    }

    pub(crate) fn key(&self) -> Option<&Arc<str>> {
        self.scoped_key().map(|scoped| &scoped.key)
    }

    pub(crate) fn scoped_key(&self) -> Option<&TaskKey> {
        self.extras().key.as_ref().map(|setting| &setting.key)
    }

    /// Returns the task that replaced this one, such as `reindex #12`.
    pub(crate) fn replaced_by(&self) -> Option<&Arc<str>> {
        self.extras().key.as_ref()?.replaced_by.get()
    }

    /// Returns whether the task may be dropped to make room for another one.
    pub(crate) fn is_evictable(&self) -> bool {
        let extras = self.extras();
        !extras.cancel_last && !extras.is_blocking
    }

    /// Returns how long the task may take to end when it is cancelled.
    pub(crate) fn grace(&self, default: Duration) -> Duration {
        self.extras().grace_period.unwrap_or(default)
    }
}

impl TaskRecord {
    /// Creates the record of a task that is not in the registry yet; admission assigns its id. Its age counts from
    /// now.
    pub(crate) fn new(spec: TaskSpec, origin: Option<Arc<TaskOrigin>>, now: Instant) -> Self {
        Self {
            id: TaskId(0),
            spec,
            origin,
            spawned: now,
            stop_request: AtomicU8::new(StopRequest::None as u8),
            permit: AtomicU8::new(RunPermit::Pending as u8),
            acceptance: Once::new(),
            refused: AtomicBool::new(false),
            unfinished: AtomicBool::new(false),
            handle_dropped: AtomicBool::new(false),
            slot_released: AtomicBool::new(false),
            attempt: AtomicU32::new(0),
            status: Mutex::new(TaskStatus::Live { waker: None, heartbeat: None, handle: None }),
        }
    }

    /// Counts the task's age from now, because it had to wait for a slot. Has no effect once the registry has the task.
    pub(crate) fn reset_age(self: &mut Arc<Self>, now: Instant) {
        if let Some(task) = Arc::get_mut(self) {
            task.spawned = now;
        }
    }

    /// Returns its run's list of tasks, if the run's end concerns this task.
    pub(crate) fn run_tasks(&self) -> Option<&RunTasks> {
        let tasks = self.origin.as_ref()?.run_tasks();
        (self.spec.extras().on_run_end != OnRunEnd::Detach).then_some(tasks)
    }

    /// Returns the run of which a node, or a task, spawned the task.
    pub(crate) fn run(&self) -> Option<RunId> {
        self.origin.as_ref().map(|origin| origin.run())
    }

    /// Returns when the timeout is over; `None` if there is none, or if it lies beyond the clock's range.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.spec.timeout.and_then(|timeout| self.spawned.checked_add(timeout))
    }

    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.spawned)
    }

    /// Requests that the task stop, and wakes it. The caller must not hold the registry's lock: cancelling the token
    /// runs the wakers of the futures that wait for it.
    pub(crate) fn request_stop(&self, request: StopRequest) {
        if self.has_ended() {
            return;
        }
        self.mark_stop_requested(request);
        if let Some(token) = &self.spec.token {
            // The token wakes futures of the user, with wakers that may be the user's too.
            catch_panic(|| token.cancel());
        }
        self.wake();
    }

    /// Records a request without waking the task: for a caller that holds the registry's lock, and calls
    /// [`request_stop`](Self::request_stop) after it.
    pub(crate) fn mark_stop_requested(&self, request: StopRequest) {
        // Release: a supervisor that sees the request also sees `unfinished`, which a close sets before it. The
        // supervisor can't miss the request, because `wake` and `set_waker` take the same lock.
        self.stop_request.fetch_max(request as u8, Ordering::AcqRel);
    }

    /// Wakes the supervisor. The caller must not hold the registry's lock: a waker is the runtime's code.
    pub(crate) fn wake(&self) {
        let waker = match &*self.status.lock() {
            TaskStatus::Live { waker, .. } => waker.clone(),
            TaskStatus::Ended { .. } => None,
        };
        if let Some(waker) = waker {
            catch_panic(|| waker.wake());
        }
    }

    pub(crate) fn stop_request(&self) -> StopRequest {
        // Acquire: pairs with `mark_stop_requested`.
        match self.stop_request.load(Ordering::Acquire) {
            0 => StopRequest::None,
            1 => StopRequest::Cancel,
            2 => StopRequest::EndGrace,
            3 => StopRequest::Abort,
            _ => StopRequest::Evict,
        }
    }

    /// Decides that the runtime has taken the task, unless it is decided already, and calls `report`. When this returns,
    /// the decision has been reported, by this call or by another one.
    pub(crate) fn accept(&self, report: impl FnOnce()) {
        if !self.acceptance.is_completed() {
            self.acceptance.call_once(report);
        }
    }

    /// Decides that the runtime has not taken the task; returns `false` if it has.
    pub(crate) fn refuse(&self) -> bool {
        // Relaxed: `acceptance` orders the store before each load that follows its completion.
        self.acceptance.call_once(|| self.refused.store(true, Ordering::Relaxed));
        self.is_refused()
    }

    /// Returns whether the runtime has refused the task; valid once that is decided.
    pub(crate) fn is_refused(&self) -> bool {
        // Relaxed: as in `refuse`.
        self.refused.load(Ordering::Relaxed)
    }

    /// Sets the waker of the supervisor. A request made before this call is visible to loads after it; a later request
    /// finds the waker: the lock orders the two.
    pub(crate) fn set_waker(&self, new: &Waker) {
        if let TaskStatus::Live { waker, .. } = &mut *self.status.lock() {
            *waker = Some(new.clone());
        }
    }

    /// Grants the permit to run to a task that is not queued.
    pub(crate) fn permit_at_once(&self) {
        // Release: pairs with the load in `permit`, which takes it with what admission wrote.
        self.permit.store(RunPermit::AtOnce as u8, Ordering::Release);
    }

    /// Grants the permit to run to a queued task.
    pub(crate) fn permit_after_queue(&self) {
        // Release: a task that sees its permit also sees the end of the task that left the slot to it.
        self.permit.store(RunPermit::AfterQueue as u8, Ordering::Release);
    }

    /// Makes the task wait for its delay to end.
    pub(crate) fn begin_delay(&self) {
        // Relaxed: the task is not shared yet.
        self.permit.store(RunPermit::Delayed as u8, Ordering::Relaxed);
    }

    /// Ends the task's delay: it is queued from now on.
    pub(crate) fn end_delay(&self, now: Instant) {
        // It is not set yet: a delay ends once only.
        let _ = self.spec.extras().delay_over.set(now);
        // Release: pairs with the load in `permit`.
        self.permit.store(RunPermit::Pending as u8, Ordering::Release);
    }

    /// Returns the moment from which on the task's time in the queue counts.
    pub(crate) fn queued_since(&self) -> Instant {
        self.spec.extras().delay_over.get().copied().unwrap_or(self.spawned)
    }

    pub(crate) fn permit(&self) -> RunPermit {
        // Acquire: pairs with the stores that change the permit. `wake` follows them, so the supervisor misses none.
        match self.permit.load(Ordering::Acquire) {
            0 => RunPermit::Delayed,
            1 => RunPermit::Pending,
            2 => RunPermit::AfterQueue,
            _ => RunPermit::AtOnce,
        }
    }

    /// Returns whether the task waits for its delay to end.
    pub(crate) fn is_delayed(&self) -> bool {
        self.permit() == RunPermit::Delayed
    }

    /// Returns whether the task has its permit to run.
    pub(crate) fn may_run(&self) -> bool {
        matches!(self.permit(), RunPermit::AfterQueue | RunPermit::AtOnce)
    }

    /// Returns whether the task is delayed or queued, or was.
    pub(crate) fn was_queued(&self) -> bool {
        self.permit() != RunPermit::AtOnce
    }

    /// Returns whether the task may still begin: it was not requested to stop, or has a grace period as one of those that
    /// a close cancels last.
    pub(crate) fn may_begin(&self) -> bool {
        match self.stop_request() {
            StopRequest::None => true,
            StopRequest::Cancel => self.spec.extras().cancel_last && self.is_unfinished(),
            StopRequest::EndGrace | StopRequest::Abort | StopRequest::Evict => false,
        }
    }

    /// Returns whether the task may run and waits for one of the runtime's threads for blocking work. The caller holds
    /// the registry's lock.
    pub(crate) fn awaits_thread(&self) -> bool {
        self.spec.extras().is_blocking && self.may_run() && self.attempt() == 0
    }

    /// Begins the first attempt.
    pub(crate) fn begin(&self) {
        // Release: the number is a value of its own and guards nothing else; it pairs with the load in `attempt`.
        self.attempt.store(1, Ordering::Release);
    }

    /// Begins another attempt, and returns its number. The progress was that of the attempt before.
    pub(crate) fn begin_attempt(&self) -> u32 {
        let mut status = self.status.lock();
        if let TaskStatus::Live { heartbeat: Some(heartbeat), .. } = &mut *status {
            heartbeat.progress = None;
        }
        // AcqRel: as in `begin`. Only the task itself counts its attempts up.
        self.attempt.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Returns the number of the current attempt, from 1; 0 if the task has not begun.
    pub(crate) fn attempt(&self) -> u32 {
        // Acquire: pairs with the stores in `begin` and `begin_attempt`.
        self.attempt.load(Ordering::Acquire)
    }

    /// Records a heartbeat of a moment, with or without progress; returns `false` if the task has ended. The moment may
    /// lie ahead: no other heartbeat is expected until then.
    pub(crate) fn beat(&self, last: Instant, progress: Option<Arc<TaskProgress>>) -> bool {
        match &mut *self.status.lock() {
            TaskStatus::Ended { .. } => return false,
            TaskStatus::Live { heartbeat: Some(heartbeat), .. } => {
                heartbeat.last = last;
                heartbeat.progress = progress.or(heartbeat.progress.take());
            }
            TaskStatus::Live { heartbeat, .. } => *heartbeat = Some(Box::new(Heartbeat { progress, last })),
        }
        true
    }

    /// Returns the moment of the last heartbeat.
    pub(crate) fn last_heartbeat(&self) -> Option<Instant> {
        match &*self.status.lock() {
            TaskStatus::Live { heartbeat, .. } => heartbeat.as_ref().map(|heartbeat| heartbeat.last),
            TaskStatus::Ended { .. } => None,
        }
    }

    /// Returns the number of the current attempt and the progress of that attempt, read at one moment.
    pub(crate) fn attempt_and_progress(&self) -> (u32, Option<Arc<TaskProgress>>) {
        // `begin_attempt` changes both under this lock.
        let status = self.status.lock();
        let progress = match &*status {
            TaskStatus::Live { heartbeat, .. } => heartbeat.as_ref().and_then(|heartbeat| heartbeat.progress.clone()),
            TaskStatus::Ended { progress, .. } => progress.clone(),
        };
        (self.attempt(), progress)
    }

    /// Releases the task's slot to another one; returns whether this call was the first.
    pub(crate) fn release_slot(&self) -> bool {
        // Relaxed: this flag is only read and written under the registry's lock, which orders the accesses.
        !self.slot_released.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn slot_released(&self) -> bool {
        // Relaxed: as in `release_slot`.
        self.slot_released.load(Ordering::Relaxed)
    }

    /// Marks the task as cancelled by a close whose bound was over; returns whether this call was the first.
    pub(crate) fn mark_unfinished(&self) -> bool {
        // `swap` makes exactly one caller the first. Release: pairs with the load in `is_unfinished`.
        !self.unfinished.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn is_unfinished(&self) -> bool {
        // Acquire: pairs with the swap in `mark_unfinished`.
        self.unfinished.load(Ordering::Acquire)
    }

    /// Records the end, and leaves the result to the handle. From here on the handle is ready, so the caller holds the
    /// registry's lock, under which the task leaves the live ones as well.
    pub(crate) fn set_end(&self, end: TaskEnd, result: Option<TaskResult>) -> Remains {
        let mut status = self.status.lock();
        // Relaxed: the flag is set under this lock.
        let (result, unread) =
            if self.handle_dropped.load(Ordering::Relaxed) { (None, result) } else { (result, None) };
        let progress = match &mut *status {
            TaskStatus::Live { heartbeat: Some(heartbeat), .. } => heartbeat.progress.take(),
            _ => None,
        };
        let status = std::mem::replace(&mut *status, TaskStatus::Ended { end, progress, result });
        Remains { status, unread }
    }

    /// Returns whether there is a handle that may take the result.
    pub(crate) fn has_handle(&self) -> bool {
        // Relaxed: a stale `true` is corrected by `set_end`.
        !self.handle_dropped.load(Ordering::Relaxed)
    }

    /// Takes the result for the handle when the task has ended; it is absent if it was taken before.
    pub(crate) fn poll_result(&self, cx: &Context<'_>) -> Poll<Option<TaskResult>> {
        if !self.has_ended() {
            // The waker is cloned outside the lock, because it is user code.
            let mut waker = Some(cx.waker().clone());
            let is_live = match &mut *self.status.lock() {
                TaskStatus::Live { handle, .. } => {
                    std::mem::swap(handle, &mut waker);
                    true
                }
                TaskStatus::Ended { .. } => false,
            };
            catch_panic(|| drop(waker));
            if is_live {
                return Poll::Pending;
            }
        }
        match &mut *self.status.lock() {
            TaskStatus::Ended { result, .. } => Poll::Ready(result.take()),
            // Unreachable: an end is final.
            TaskStatus::Live { .. } => Poll::Pending,
        }
    }

    /// Records that there is no handle any more, and drops the result.
    pub(crate) fn drop_handle(&self) {
        let (waker, result) = {
            let mut status = self.status.lock();
            // Relaxed: `set_end` reads the flag under this lock.
            self.handle_dropped.store(true, Ordering::Relaxed);
            match &mut *status {
                TaskStatus::Live { handle, .. } => (handle.take(), None),
                TaskStatus::Ended { result, .. } => (None, result.take()),
            }
        };
        catch_panic(|| drop(waker));
        catch_panic(|| drop(result));
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(*self.status.lock(), TaskStatus::Ended { .. })
    }

    /// Returns whether the task has ended, and was not cut off.
    pub(crate) fn ended_by_itself(&self) -> bool {
        self.end().is_some_and(|end| end.outcome.ended_by_itself())
    }

    pub(crate) fn end(&self) -> Option<TaskEnd> {
        match &*self.status.lock() {
            TaskStatus::Live { .. } => None,
            TaskStatus::Ended { end, .. } => Some(end.clone()),
        }
    }
}

//! [`Task`]: what the manager knows of one task, from its spawn until the last one who looks at it lets go.

use std::{
    borrow::Cow,
    sync::{Arc, PoisonError, atomic::Ordering},
    task::Waker,
    time::Duration,
};

use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    builder::OnDuplicateKey,
    info::{TaskId, TaskOrigin, TaskProgress},
    outcome::{TaskOutcome, TimeoutKind},
    owner::{OnRunEnd, RunTasks},
    queue::Place,
    sync::{AtomicBool, AtomicU8, AtomicU32, Mutex, MutexGuard},
};
use crate::run_id::RunId;

/// A task's own fields for the logs, in the order in which they were given.
pub(super) type Fields = Box<[(Cow<'static, str>, Value)]>;

/// What the builder knows of a task before it is spawned.
#[derive(Debug)]
pub(super) struct Spec {
    pub(super) name: Cow<'static, str>,
    pub(super) timeout: Option<Duration>,
    pub(super) context: Fields,
    /// Present if the task listens to its own cancellation.
    pub(super) token: Option<CancellationToken>,
    /// In a box because most tasks have nothing of it.
    pub(super) extras: Option<Box<Extras>>,
}

/// What few tasks are given.
#[derive(Debug, Default)]
pub(super) struct Extras {
    pub(super) key: Option<(Arc<str>, OnDuplicateKey)>,
    pub(super) queue_timeout: Option<Duration>,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) grace_period: Option<Duration>,
    pub(super) cancel_last: bool,
    /// It can't be dropped where it awaits.
    pub(super) is_blocking: bool,
    pub(super) on_run_end: OnRunEnd,
    /// The tasks that spawned this one, directly or not, and that were still alive when they did.
    pub(super) ancestors: Box<[TaskRef]>,
}

/// A task by its place in the registry. A place is used again; an id is not. The older task is the lesser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TaskRef {
    pub(super) id: TaskId,
    pub(super) slot: usize,
}

#[derive(Debug)]
pub(super) struct Task {
    pub(super) at: TaskRef,
    pub(super) spec: Spec,
    pub(super) origin: Option<Arc<TaskOrigin>>,
    pub(super) spawned: Instant,
    request: AtomicU8,
    turn: AtomicU8,
    unfinished: AtomicBool,
    /// Another one has its place already.
    gave_place: AtomicBool,
    /// Zero until it begins to run.
    attempt: AtomicU32,
    life: Mutex<Life>,
}

#[derive(Debug)]
enum Life {
    Live {
        /// What wakes it, once it waits.
        waker: Option<Waker>,
        signs: Option<Box<Signs>>,
    },
    Ended(End),
}

/// What the task has said of itself.
#[derive(Debug)]
struct Signs {
    progress: Option<Arc<TaskProgress>>,
    last: Instant,
}

/// Whether it is a task's turn to run.
#[repr(u8)]
enum Turn {
    Waits,
    /// It had to wait for it.
    Came,
    AtOnce,
}

/// What somebody wants of a running task; a later request can only be a stronger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Request {
    None,
    Cancel,
    Abort,
    /// To make room for another one.
    Evict,
}

#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) outcome: TaskOutcome,
    pub(super) age: Duration,
    pub(super) error: Option<Arc<str>>,
    /// Which limit was over, if one was.
    pub(super) limit: Option<TimeoutKind>,
}

impl Spec {
    pub(super) fn key(&self) -> Option<&Arc<str>> {
        self.extras.as_ref()?.key.as_ref().map(|(key, _)| key)
    }

    pub(super) fn ancestors(&self) -> &[TaskRef] {
        self.extras.as_ref().map_or(&[], |extras| &extras.ancestors)
    }

    pub(super) fn cancel_last(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.cancel_last)
    }

    pub(super) fn may_be_evicted(&self) -> bool {
        self.extras.as_ref().is_none_or(|extras| !extras.cancel_last && !extras.is_blocking)
    }

    pub(super) fn on_run_end(&self) -> OnRunEnd {
        self.extras.as_ref().map_or(OnRunEnd::Detach, |extras| extras.on_run_end)
    }

    pub(super) fn has_idle_timeout(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.idle_timeout.is_some())
    }

    /// How long it may take to end when it is cancelled.
    pub(super) fn grace(&self, default: Duration) -> Duration {
        self.extras.as_ref().and_then(|extras| extras.grace_period).unwrap_or(default)
    }
}

impl Task {
    /// A task that is not in the registry yet; that gives it its place. Its age counts from now.
    pub(super) fn new(spec: Spec, origin: Option<Arc<TaskOrigin>>) -> Self {
        Self {
            at: TaskRef { id: TaskId(0), slot: usize::MAX },
            spec,
            origin,
            spawned: Instant::now(),
            request: AtomicU8::new(Request::None as u8),
            turn: AtomicU8::new(Turn::Waits as u8),
            unfinished: AtomicBool::new(false),
            gave_place: AtomicBool::new(false),
            attempt: AtomicU32::new(0),
            life: Mutex::new(Life::Live { waker: None, signs: None }),
        }
    }

    /// Its age counts from now: it had to wait for its place. Without effect on a task that has it.
    pub(super) fn renew(self: &mut Arc<Self>) {
        if let Some(task) = Arc::get_mut(self) {
            task.spawned = Instant::now();
        }
    }

    /// The list on which its run keeps it, if the run doesn't just leave it behind.
    pub(super) fn kept_by(&self) -> Option<&RunTasks> {
        let tasks = self.origin.as_ref()?.run_tasks()?;
        (self.spec.on_run_end() != OnRunEnd::Detach).then_some(tasks)
    }

    /// Whether a node of this run spawned it, or another task of that run did.
    pub(super) fn is_of(&self, run: RunId) -> bool {
        self.origin.as_ref().is_some_and(|origin| origin.run() == run)
    }

    pub(super) fn place(&self) -> Place<'_> {
        Place { task: self.at, name: &self.spec.name, key: self.spec.key() }
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the timeout is over; `None` if there is none, or if it is further off than the clock can tell.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.spec.timeout.and_then(|timeout| self.spawned.checked_add(timeout))
    }

    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.spawned)
    }

    /// Asks the running task for something and wakes it. The caller must not hold the registry's lock: whoever
    /// waits for the token is woken here.
    pub(super) fn ask(&self, request: Request) {
        if self.has_ended() {
            return;
        }
        self.mark(request);
        if let Some(token) = &self.spec.token {
            token.cancel();
        }
        self.wake();
    }

    /// Only notes what is asked: for whoever holds the registry's lock, and wakes the task later.
    pub(super) fn mark(&self, request: Request) {
        self.request.fetch_max(request as u8, Ordering::AcqRel);
    }

    /// The caller must not hold the registry's lock.
    pub(super) fn wake(&self) {
        let waker = match &*self.life() {
            Life::Live { waker, .. } => waker.clone(),
            Life::Ended(_) => None,
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn request(&self) -> Request {
        match self.request.load(Ordering::Acquire) {
            0 => Request::None,
            1 => Request::Cancel,
            2 => Request::Abort,
            _ => Request::Evict,
        }
    }

    /// Whoever asks before this lock is seen by what is read after it; whoever asks later finds the waker.
    pub(super) fn set_waker(&self, new: &Waker) {
        let mut life = self.life();
        if let Life::Live { waker, .. } = &mut *life {
            *waker = Some(new.clone());
        }
    }

    /// It need not wait for its turn.
    pub(super) fn let_run_at_once(&self) {
        self.turn.store(Turn::AtOnce as u8, Ordering::Release);
    }

    /// Its turn has come.
    pub(super) fn let_run(&self) {
        self.turn.store(Turn::Came as u8, Ordering::Release);
    }

    pub(super) fn may_run(&self) -> bool {
        self.turn.load(Ordering::Acquire) != Turn::Waits as u8
    }

    /// Whether it was not its turn when it was spawned.
    pub(super) fn had_to_wait(&self) -> bool {
        self.turn.load(Ordering::Acquire) != Turn::AtOnce as u8
    }

    /// The first attempt begins.
    pub(super) fn begin(&self) {
        self.attempt.store(1, Ordering::Release);
    }

    /// Another attempt begins; gives its number.
    pub(super) fn begin_attempt(&self) -> u32 {
        self.attempt.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Which attempt it is at, from 1; 0 if it has not begun.
    pub(super) fn attempt(&self) -> u32 {
        self.attempt.load(Ordering::Acquire)
    }

    /// The task says that it is alive, and perhaps how far it is; false if it has ended.
    pub(super) fn sign(&self, new: Option<Arc<TaskProgress>>) -> bool {
        self.sign_at(Instant::now(), new)
    }

    /// The same as of a moment, which may lie ahead: until then nothing is expected of it.
    pub(super) fn sign_at(&self, last: Instant, new: Option<Arc<TaskProgress>>) -> bool {
        match &mut *self.life() {
            Life::Ended(_) => return false,
            Life::Live { signs: Some(signs), .. } => {
                signs.last = last;
                signs.progress = new.or(signs.progress.take());
            }
            Life::Live { signs, .. } => *signs = Some(Box::new(Signs { progress: new, last })),
        }
        true
    }

    /// When it last gave a sign of life.
    pub(super) fn last_sign(&self) -> Option<Instant> {
        match &*self.life() {
            Life::Live { signs, .. } => signs.as_ref().map(|signs| signs.last),
            Life::Ended(_) => None,
        }
    }

    pub(super) fn progress(&self) -> Option<Arc<TaskProgress>> {
        match &*self.life() {
            Life::Live { signs, .. } => signs.as_ref()?.progress.clone(),
            Life::Ended(_) => None,
        }
    }

    /// Another one has its place from now on; true the first time.
    pub(super) fn give_place(&self) -> bool {
        !self.gave_place.swap(true, Ordering::AcqRel)
    }

    pub(super) fn gave_place(&self) -> bool {
        self.gave_place.load(Ordering::Acquire)
    }

    /// Says that a close cut this task off; true the first time.
    pub(super) fn mark_cut_off(&self) -> bool {
        !self.unfinished.swap(true, Ordering::AcqRel)
    }

    pub(super) fn is_cut_off(&self) -> bool {
        self.unfinished.load(Ordering::Acquire)
    }

    pub(super) fn set_end(&self, end: End) {
        let life = std::mem::replace(&mut *self.life(), Life::Ended(end));
        // Outside the lock: the waker may be the last to hold the runtime's memory of the task.
        drop(life);
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(*self.life(), Life::Ended(_))
    }

    pub(super) fn end(&self) -> Option<End> {
        match &*self.life() {
            Life::Live { .. } => None,
            Life::Ended(end) => Some(end.clone()),
        }
    }
}

//! [`Task`]: what the manager knows of one task, from its spawn until the last one who looks at it lets go.

use std::{
    borrow::Cow,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::Waker,
    time::Duration,
};

use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::info::{TaskId, TaskOrigin};
use super::outcome::TaskOutcome;

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
}

/// A task by its place in the registry. A place is used again; an id is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TaskRef {
    pub(super) slot: usize,
    pub(super) id: TaskId,
}

#[derive(Debug)]
pub(super) struct Task {
    pub(super) at: TaskRef,
    pub(super) spec: Spec,
    pub(super) origin: Option<Arc<TaskOrigin>>,
    /// The tasks that spawned this one, directly or not, and that were still alive when they did.
    pub(super) ancestors: Box<[TaskRef]>,
    pub(super) spawned: Instant,
    request: AtomicU8,
    polled: AtomicBool,
    cut_off: AtomicBool,
    life: Mutex<Life>,
}

#[derive(Debug)]
enum Life {
    /// With what wakes it, once it waits.
    Live(Option<Waker>),
    Ended(End),
}

/// What somebody wants of a running task; a later request can only be a stronger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Request {
    None,
    Cancel,
    Abort,
}

#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) outcome: TaskOutcome,
    pub(super) age: Duration,
    pub(super) error: Option<Arc<str>>,
}

impl Task {
    /// A task that is not in the registry yet; that gives it its place.
    pub(super) fn new(spec: Spec, origin: Option<Arc<TaskOrigin>>) -> Self {
        Self {
            at: TaskRef { slot: usize::MAX, id: TaskId(0) },
            spec,
            origin,
            ancestors: Box::default(),
            spawned: Instant::now(),
            request: AtomicU8::new(Request::None as u8),
            polled: AtomicBool::new(false),
            cut_off: AtomicBool::new(false),
            life: Mutex::new(Life::Live(None)),
        }
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
        self.request.fetch_max(request as u8, Ordering::AcqRel);
        if let Some(token) = &self.spec.token {
            token.cancel();
        }
        let waker = match &*self.life() {
            Life::Live(waker) => waker.clone(),
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
            _ => Request::Abort,
        }
    }

    /// Whoever asks before this lock is seen by the [`Task::request`] after it; whoever asks later finds the waker.
    pub(super) fn set_waker(&self, waker: &Waker) {
        let mut life = self.life();
        if let Life::Live(old) = &mut *life {
            *old = Some(waker.clone());
        }
    }

    pub(super) fn set_polled(&self) {
        self.polled.store(true, Ordering::Release);
    }

    pub(super) fn was_polled(&self) -> bool {
        self.polled.load(Ordering::Acquire)
    }

    /// Says that a close cut this task off; true the first time.
    pub(super) fn mark_cut_off(&self) -> bool {
        !self.cut_off.swap(true, Ordering::AcqRel)
    }

    pub(super) fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Acquire)
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
            Life::Live(_) => None,
            Life::Ended(end) => Some(end.clone()),
        }
    }
}

//! [`Supervise`]: the future that tokio runs for a task. It alone decides how the task ends.
//!
//! It polls the body, and drops it when the timeout is over or somebody asks for that, so there is no second task, and
//! the only timer is its own. Its destructor takes the place of an end if the runtime drops the task.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::{
    body::Body,
    context::Current,
    log,
    options::TaskManagerOptions,
    outcome::{TaskError, TaskOutcome, TimeoutKind},
    record::{End, Request, Task},
    sync::{Sleep, sleep_until},
};
use crate::error::panic_message;

/// Timers fire up to this much late: an end within it is no overrun.
const TIMER_STEP: Duration = Duration::from_millis(1);

pin_project! {
    pub(super) struct Supervise<B>
    where
        B: Body,
    {
        current: Current,
        // In a box, and only where somebody listens.
        span: Option<Box<Span>>,
        #[pin]
        life: Life<B>,
    }

    impl<B> PinnedDrop for Supervise<B>
    where
        B: Body,
    {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            let _entered = this.span.as_deref().map(Span::enter);
            if this.life.phase != Phase::Ended {
                this.life.dropped_from_outside(this.current);
            }
        }
    }
}

pin_project! {
    struct Life<B>
    where
        B: Body,
    {
        #[pin]
        body: Option<B>,
        // The task's own, lent to its thread while the body is polled.
        here: Option<Current>,
        phase: Phase,
        has_waker: bool,
        // In a box because most tasks are never told to end.
        ending: Option<Box<Ending>>,
        // Made when the body is first found waiting; in a box because most tasks are done by then.
        sleep: Option<Pin<Box<Sleep>>>,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    New,
    /// Its turn has not come.
    Queued,
    Running,
    Ended,
}

/// How far a task is with ending that was told to.
#[derive(Default)]
struct Ending {
    /// When its grace is over.
    grace_over: Option<Instant>,
    /// Why its body was told to stop, which can't be dropped.
    told: Option<Stop>,
}

/// Why a task is stopped.
#[derive(Clone, Copy, Debug)]
enum Stop {
    Cancelled,
    Aborted,
    Evicted,
    TimedOut { limit: TimeoutKind, after: Duration },
}

impl Stop {
    fn error(self) -> TaskError {
        match self {
            Self::Cancelled => TaskError::Cancelled,
            Self::Aborted => TaskError::Aborted,
            Self::Evicted => TaskError::Evicted,
            Self::TimedOut { limit, after } => TaskError::TimedOut { after, limit },
        }
    }
}

type TaskResult<B> = Result<<B as Body>::Value, TaskError>;

impl<B: Body> Supervise<B> {
    pub(super) fn new(current: Current, body: B) -> Self {
        let life = Life {
            body: Some(body),
            here: Some(current.clone()),
            phase: Phase::New,
            has_waker: false,
            ending: None,
            sleep: None,
        };
        Self { current, span: None, life }
    }

    /// Tells those who want to know that the task was spawned.
    pub(super) fn announce(&mut self) {
        self.current.registry.spawned(&self.current.task);
        let span = log::span(&self.current.task);
        self.span = (!span.is_disabled()).then(|| Box::new(span));
    }
}

impl<B: Body> Future for Supervise<B> {
    type Output = TaskResult<B>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TaskResult<B>> {
        let this = self.project();
        let _entered = this.span.as_deref().map(Span::enter);
        this.life.poll(cx, this.current)
    }
}

impl<B: Body> Life<B> {
    /// Its turn has come.
    fn begin(self: Pin<&mut Self>, current: &Current) {
        let this = self.project();
        *this.phase = Phase::Running;
        // Its timer was for the queue.
        *this.sleep = None;
        current.registry.started(&current.task);
    }

    fn told(&self) -> Option<Stop> {
        self.ending.as_ref()?.told
    }

    /// What is asked of the task, if it is to be stopped for that now.
    fn requested(&self, task: &Task) -> Option<Stop> {
        match task.request() {
            Request::None => None,
            Request::Cancel if self.has_grace(task) => None,
            Request::Cancel => Some(Stop::Cancelled),
            Request::Abort => Some(Stop::Aborted),
            Request::Evict => Some(Stop::Evicted),
        }
    }

    /// Whether the task is not dropped as soon as it is cancelled.
    fn has_grace(&self, task: &Task) -> bool {
        let is_cut_off_last = task.spec.cancel_last() && task.is_cut_off();
        // One that had to wait for its turn, and has not begun, has nothing to end.
        let has_begun = match self.phase {
            Phase::New => !task.had_to_wait(),
            Phase::Queued => false,
            Phase::Running | Phase::Ended => true,
        };
        is_cut_off_last || (has_begun && task.spec.token.is_some())
    }

    /// Drops the body, or tells it to stop if that wouldn't end it.
    fn stop(mut self: Pin<&mut Self>, current: &Current, why: Stop) -> Poll<TaskResult<B>> {
        let this = self.as_mut().project();
        if this.body.as_ref().as_pin_ref().is_none_or(|body| body.is_droppable()) {
            // Whatever the task handed its token to should stop as well.
            if let Some(token) = &current.task.spec.token {
                token.cancel();
            }
            return Poll::Ready(self.end(current, Err(why.error())));
        }
        this.ending.get_or_insert_default().told.get_or_insert(why);
        *this.sleep = None;
        current.task.ask(Request::Cancel);
        Poll::Pending
    }

    /// Polls the body; its panic is the task's end.
    fn poll_body(self: Pin<&mut Self>, cx: &mut Context<'_>, current: &Current) -> Poll<TaskResult<B>> {
        let told = self.told();
        let mut this = self.project();
        let Some(body) = this.body.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        match catch_unwind(AssertUnwindSafe(|| Current::scope(this.here, || body.poll(cx)))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Some(result))) => Poll::Ready(result),
            // It found that it was told to stop before it began.
            Ok(Poll::Ready(None)) => Poll::Ready(Err(match (told, current.task.request()) {
                (Some(why @ Stop::TimedOut { .. }), _) => why.error(),
                (None, Request::None) => TaskError::Aborted,
                _ => TaskError::Cancelled,
            })),
            Err(payload) => Poll::Ready(Err(panicked(payload))),
        }
    }

    /// When the task is to be stopped if nothing else happens, and why.
    fn next_stop(&self, task: &Task, options: &TaskManagerOptions) -> Option<(Instant, Stop)> {
        if self.told().is_some() {
            return None;
        }
        let extras = task.spec.extras.as_deref();
        let timed_out = |limit, since: Instant, after: Option<Duration>| {
            let after = after?;
            Some((since.checked_add(after)?, Stop::TimedOut { limit, after }))
        };
        let total = timed_out(TimeoutKind::Total, task.spawned, task.spec.timeout);
        let other = match (&self.ending, self.phase) {
            (Some(ending), _) => ending.grace_over.map(|over| (over, Stop::Aborted)),
            (None, Phase::Queued) => {
                let limit = extras.and_then(|extras| extras.queue_timeout).or(options.queue_timeout);
                timed_out(TimeoutKind::Queue, task.spawned, limit)
            }
            (None, Phase::Running) => extras.and_then(|extras| extras.idle_timeout).and_then(|limit| {
                // Its beginning was its first sign of life.
                timed_out(TimeoutKind::Idle, task.last_sign()?, Some(limit))
            }),
            (None, Phase::New | Phase::Ended) => None,
        };
        // The timeout first, where both are over at once.
        [total, other].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Resolves when the task is to be stopped.
    fn poll_stop(mut self: Pin<&mut Self>, cx: &mut Context<'_>, current: &Current) -> Poll<Stop> {
        loop {
            let Some((at, why)) = self.next_stop(&current.task, &current.registry.options) else {
                return Poll::Pending;
            };
            let sleep = self.as_mut().project().sleep;
            let sleep = sleep.get_or_insert_with(|| Box::pin(sleep_until(at)));
            if sleep.deadline() != at {
                sleep.as_mut().reset(at);
            }
            // A body that has used up its share of this poll must not keep its own timer from being looked at.
            ready!(Pin::new(&mut tokio::task::unconstrained(sleep.as_mut())).poll(cx));
            // A sign of life may have come since.
            if self.next_stop(&current.task, &current.registry.options).is_some_and(|(next, _)| next <= at) {
                return Poll::Ready(why);
            }
        }
    }

    fn end(self: Pin<&mut Self>, current: &Current, result: TaskResult<B>) -> TaskResult<B> {
        let mut this = self.project();
        *this.phase = Phase::Ended;
        let result = match (result, drop_body(this.body.as_mut(), this.here)) {
            (result @ Err(TaskError::Panicked { .. }), _) | (result, Ok(())) => result,
            (_, Err(message)) => Err(TaskError::Panicked { message }),
        };
        let (outcome, error, limit) = match &result {
            Ok(_) => (TaskOutcome::Completed, None, None),
            Err(error) => (error.outcome(), error.text(), error.limit()),
        };
        record(current, outcome, error, limit);
        result
    }

    /// The runtime dropped the task, because it shuts down.
    fn dropped_from_outside(self: Pin<&mut Self>, current: &Current) {
        let mut this = self.project();
        *this.phase = Phase::Ended;
        let (outcome, error) = match drop_body(this.body.as_mut(), this.here) {
            Err(message) => (TaskOutcome::Panicked, Some(message.into())),
            Ok(()) if current.task.request() == Request::Cancel => (TaskOutcome::Cancelled, None),
            Ok(()) => (TaskOutcome::Aborted, None),
        };
        record(current, outcome, error, None);
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>, current: &Current) -> Poll<TaskResult<B>> {
        let task = &*current.task;
        if self.phase == Phase::New && task.spec.timeout == Some(Duration::ZERO) {
            return self.stop(current, Stop::TimedOut { limit: TimeoutKind::Total, after: Duration::ZERO });
        }
        loop {
            let request = task.request();
            let may_run = task.may_run();
            if self.phase == Phase::New && !may_run {
                *self.as_mut().project().phase = Phase::Queued;
            }
            if self.told().is_none()
                && let Some(why) = self.requested(task)
                && let Poll::Ready(result) = self.as_mut().stop(current, why)
            {
                return Poll::Ready(result);
            }
            // Not before it is known that it isn't dropped at once: then it never began.
            if may_run && matches!(self.phase, Phase::New | Phase::Queued) {
                self.as_mut().begin(current);
            }
            // The body first: if it is done and its time is over at once, it is done.
            if self.phase != Phase::Queued
                && let Poll::Ready(result) = self.as_mut().poll_body(cx, current)
            {
                return Poll::Ready(self.end(current, result));
            }
            let this = self.as_mut().project();
            if *this.has_waker {
                break;
            }
            // The first time that it waits, not before: many tasks never do. One waker for all polls: tokio gives a
            // task the same one each time.
            *this.has_waker = true;
            task.set_waker(cx.waker());
            if task.request() == request && task.may_run() == may_run {
                break;
            }
            // Somebody asked before there was a waker: as if it had been there.
        }
        if task.request() != Request::None && self.ending.is_none() && is_told(task) {
            let grace = task.spec.grace(current.registry.options.grace_period);
            let grace_over = Instant::now().checked_add(grace);
            *self.as_mut().project().ending = Some(Box::new(Ending { grace_over, told: None }));
        }
        let stop = catch_unwind(AssertUnwindSafe(|| self.as_mut().poll_stop(cx, current)));
        match stop {
            Ok(why) => {
                let why = ready!(why);
                self.stop(current, why)
            }
            // The runtime has no timer, and tokio says so.
            Err(payload) => Poll::Ready(self.end(current, Err(panicked(payload)))),
        }
    }
}

/// Whether the task's token says what is asked of it, which may be noted a moment before.
fn is_told(task: &Task) -> bool {
    task.spec.token.as_ref().is_none_or(CancellationToken::is_cancelled)
}

fn panicked(payload: Box<dyn std::any::Any + Send>) -> TaskError {
    TaskError::Panicked { message: panic_message(payload).into() }
}

/// Logs the end, then counts it: whoever waited for the task may end the process, and the line must be out by then.
fn record(current: &Current, outcome: TaskOutcome, error: Option<Arc<str>>, limit: Option<TimeoutKind>) {
    /// Counts the task out even if a subscriber panics.
    struct CountOut<'a> {
        current: &'a Current,
        end: Option<End>,
    }

    impl Drop for CountOut<'_> {
        fn drop(&mut self) {
            if let Some(end) = self.end.take() {
                self.current.registry.ended(&self.current.task, end);
            }
        }
    }

    let task = &current.task;
    let now = Instant::now();
    let end = End { outcome, age: task.age(now), error, limit };
    let overrun = matches!(outcome, TaskOutcome::Completed | TaskOutcome::Failed)
        .then(|| task.deadline().and_then(|deadline| now.checked_duration_since(deadline)))
        .flatten()
        .filter(|overrun| *overrun > TIMER_STEP);
    let count_out = CountOut { current, end: Some(end) };
    if let Some(end) = &count_out.end {
        log::ended(task, end, overrun);
    }
}

/// Drops the body now, as the task; `Err` is what its destructor panicked with.
fn drop_body<B>(mut body: Pin<&mut Option<B>>, current: &mut Option<Current>) -> Result<(), String> {
    let drop = || Current::scope(current, || body.set(None));
    catch_unwind(AssertUnwindSafe(drop)).map_err(|payload| panic_message(payload).into())
}

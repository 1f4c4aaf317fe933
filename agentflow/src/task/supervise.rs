//! [`Supervise`]: the future that tokio runs for a task. It alone decides how the task ends.
//!
//! It polls the body, and drops it when the timeout is over or somebody asks for that, so there is no second task, and
//! the only timer is its own. Its destructor takes the place of an end if the runtime drops the task.

use std::{
    fmt::Write,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use super::{
    context::Current,
    log,
    outcome::{TaskError, TaskOutcome, TaskOutput},
    record::{End, Request, Task},
    registry::Registry,
};
use crate::error::panic_message;
use pin_project_lite::pin_project;
use tokio::{
    task::{JoinHandle, futures::TaskLocalFuture},
    time::{Instant, Sleep},
};

/// Timers fire up to this much late: an end within it is no overrun.
const TIMER_STEP: Duration = Duration::from_millis(1);

/// What a task runs.
pub(super) trait Body {
    type Output: TaskOutput;

    /// Whether dropping the body ends it.
    const DROPPABLE: bool;

    /// `None`: it was told to stop before it began.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Output>>;
}

impl<F> Body for TaskLocalFuture<Current, F>
where
    F: Future,
    F::Output: TaskOutput,
{
    type Output = F::Output;

    const DROPPABLE: bool = true;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        Future::poll(self, cx).map(Some)
    }
}

/// A closure on a thread for blocking work; it gives `None` if it finds that it shouldn't begin.
impl<O: TaskOutput> Body for JoinHandle<Option<O>> {
    type Output = O;

    const DROPPABLE: bool = false;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<O>> {
        Poll::Ready(match ready!(Future::poll(self, cx)) {
            Ok(output) => output,
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
            // The runtime shut down before the closure began.
            Err(_) => None,
        })
    }
}

pin_project! {
    pub(super) struct Supervise<B>
    where
        B: Body,
    {
        #[pin]
        body: Option<B>,
        registry: Arc<Registry>,
        task: Arc<Task>,
        // When the body is to be stopped: at its deadline, or when its grace is over.
        stop_at: Option<Instant>,
        // Made when the body is first found waiting; in a box because most tasks are done by then.
        sleep: Option<Pin<Box<Sleep>>>,
        phase: Phase,
        has_waker: bool,
        // What a body that can't be dropped was told to stop for.
        told: Option<TaskOutcome>,
    }

    impl<B> PinnedDrop for Supervise<B>
    where
        B: Body,
    {
        fn drop(this: Pin<&mut Self>) {
            if this.phase != Phase::Ended {
                this.dropped_from_outside();
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    New,
    Running,
    /// The token is cancelled, and the grace has begun.
    Cancelling,
    Ended,
}

type TaskResult<B> = Result<<<B as Body>::Output as TaskOutput>::Value, TaskError>;

impl<B: Body> Supervise<B> {
    pub(super) fn new(registry: Arc<Registry>, task: Arc<Task>, body: B) -> Self {
        Self {
            body: Some(body),
            registry,
            stop_at: task.deadline(),
            task,
            sleep: None,
            phase: Phase::New,
            has_waker: false,
            told: None,
        }
    }

    /// Drops the body, or tells it to stop if that wouldn't end it.
    fn stop(mut self: Pin<&mut Self>, outcome: TaskOutcome) -> Poll<TaskResult<B>> {
        let this = self.as_mut().project();
        if B::DROPPABLE {
            let error = match outcome {
                TaskOutcome::TimedOut => TaskError::TimedOut { after: this.task.spec.timeout.unwrap_or_default() },
                TaskOutcome::Cancelled => TaskError::Cancelled,
                _ => TaskError::Aborted,
            };
            // Whatever the task handed its token to should stop as well.
            if let Some(token) = &this.task.spec.token {
                token.cancel();
            }
            return Poll::Ready(self.end(Err(error)));
        }
        this.told.get_or_insert(outcome);
        *this.phase = Phase::Cancelling;
        *this.stop_at = None;
        *this.sleep = None;
        this.task.ask(Request::Cancel);
        Poll::Pending
    }

    fn end(self: Pin<&mut Self>, result: TaskResult<B>) -> TaskResult<B> {
        let mut this = self.project();
        *this.phase = Phase::Ended;
        let result = match (result, drop_body(this.body.as_mut())) {
            (result @ Err(TaskError::Panicked { .. }), _) | (result, Ok(())) => result,
            (_, Err(message)) => Err(TaskError::Panicked { message }),
        };
        let (outcome, error) = match &result {
            Ok(_) => (TaskOutcome::Completed, None),
            Err(error) => (error.outcome(), text(error)),
        };
        record(this.registry, this.task, outcome, error);
        result
    }

    /// The runtime dropped the task, because it shuts down.
    fn dropped_from_outside(self: Pin<&mut Self>) {
        let mut this = self.project();
        *this.phase = Phase::Ended;
        let (outcome, error) = match drop_body(this.body.as_mut()) {
            Err(message) => (TaskOutcome::Panicked, Some(message.into())),
            Ok(()) if this.task.request() == Request::Cancel => (TaskOutcome::Cancelled, None),
            Ok(()) => (TaskOutcome::Aborted, None),
        };
        record(this.registry, this.task, outcome, error);
    }
}

impl<B: Body> Future for Supervise<B> {
    type Output = TaskResult<B>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TaskResult<B>> {
        let this = self.as_mut().project();
        if *this.phase == Phase::New {
            *this.phase = Phase::Running;
            this.task.set_polled();
            if this.task.spec.timeout == Some(Duration::ZERO)
                && let Poll::Ready(result) = self.as_mut().stop(TaskOutcome::TimedOut)
            {
                return Poll::Ready(result);
            }
        }

        let request = self.task.request();
        if B::DROPPABLE {
            match request {
                Request::None => {}
                Request::Cancel if self.task.spec.token.is_some() => {}
                Request::Cancel => return self.stop(TaskOutcome::Cancelled),
                Request::Abort => return self.stop(TaskOutcome::Aborted),
            }
        }

        // The body first: if it is done and its time is over at once, it is done.
        let mut this = self.as_mut().project();
        if let Some(body) = this.body.as_mut().as_pin_mut() {
            let poll = || body.poll(cx).map(|output| output.map(TaskOutput::into_result));
            match catch_unwind(AssertUnwindSafe(poll)) {
                Ok(Poll::Pending) => {}
                Ok(Poll::Ready(Some(result))) => {
                    return Poll::Ready(self.end(result.map_err(TaskError::Failed)));
                }
                Ok(Poll::Ready(None)) => {
                    let error = match (*this.told, request) {
                        (Some(TaskOutcome::TimedOut), _) => {
                            TaskError::TimedOut { after: this.task.spec.timeout.unwrap_or_default() }
                        }
                        (None, Request::None) => TaskError::Aborted,
                        _ => TaskError::Cancelled,
                    };
                    return Poll::Ready(self.end(Err(error)));
                }
                Err(payload) => {
                    return Poll::Ready(self.end(Err(TaskError::Panicked { message: panic_message(payload).into() })));
                }
            }
        }

        if !*this.has_waker {
            *this.has_waker = true;
            // The first time that it waits, not before: many tasks never do. One waker for all polls: tokio gives a
            // task the same one each time.
            this.task.set_waker(cx.waker());
            if this.task.request() != request {
                // Somebody asked before there was a waker: as if it had been there.
                cx.waker().wake_by_ref();
            }
        }
        if request != Request::None && *this.phase == Phase::Running {
            *this.phase = Phase::Cancelling;
            let grace_over = Instant::now().checked_add(this.registry.options.grace);
            *this.stop_at = [*this.stop_at, grace_over].into_iter().flatten().min();
            *this.sleep = None;
        }
        let Some(stop_at) = *this.stop_at else {
            return Poll::Pending;
        };
        let sleep = || {
            let sleep = this.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(stop_at)));
            // A body that has used up its share of this poll must not keep its own timer from being looked at.
            Pin::new(&mut tokio::task::unconstrained(sleep.as_mut())).poll(cx)
        };
        match catch_unwind(AssertUnwindSafe(sleep)) {
            Ok(poll) => ready!(poll),
            // The runtime has no timer, and tokio says so.
            Err(payload) => {
                return Poll::Ready(self.end(Err(TaskError::Panicked { message: panic_message(payload).into() })));
            }
        }
        let timed_out = this.task.deadline().is_some_and(|deadline| deadline <= stop_at);
        self.stop(if timed_out { TaskOutcome::TimedOut } else { TaskOutcome::Aborted })
    }
}

/// Logs the end, then counts it: whoever waited for the task may end the process, and the line must be out by then.
pub(super) fn record(registry: &Registry, task: &Task, outcome: TaskOutcome, error: Option<Arc<str>>) {
    /// Counts the task out even if a subscriber panics.
    struct CountOut<'a> {
        registry: &'a Registry,
        task: &'a Task,
        end: Option<End>,
    }

    impl Drop for CountOut<'_> {
        fn drop(&mut self) {
            if let Some(end) = self.end.take() {
                self.registry.ended(self.task, end);
            }
        }
    }

    let now = Instant::now();
    let end = End { outcome, age: task.age(now), error };
    let overrun = matches!(outcome, TaskOutcome::Completed | TaskOutcome::Failed)
        .then(|| task.deadline().and_then(|deadline| now.checked_duration_since(deadline)))
        .flatten()
        .filter(|overrun| *overrun > TIMER_STEP);
    let count_out = CountOut { registry, task, end: Some(end) };
    if let Some(end) = &count_out.end {
        log::ended(task, end, overrun);
    }
}

/// Drops the body now, within the task; `Err` is what its destructor panicked with.
fn drop_body<B>(body: Pin<&mut Option<B>>) -> Result<(), String> {
    let mut body = body;
    catch_unwind(AssertUnwindSafe(|| body.set(None))).map_err(|payload| panic_message(payload).into())
}

/// The error with its sources as one line, for the record; `None` if the outcome says it all.
fn text(error: &TaskError) -> Option<Arc<str>> {
    let source = match error {
        TaskError::Failed(source) => source,
        TaskError::Panicked { message } => return Some(message.as_str().into()),
        _ => return None,
    };
    let chain = || {
        let mut text = source.to_string();
        let mut cause = source.source();
        while let Some(error) = cause {
            // Writing to a string can't fail.
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        text
    };
    let chain = catch_unwind(AssertUnwindSafe(chain));
    Some(chain.unwrap_or_else(|_| "the error panicked when it was formatted".to_owned()).into())
}

//! [`Work`]: the code that a task runs, of each kind.

use std::{
    convert::identity,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::{task::yield_now, time::sleep};

use super::{
    super::{
        context::TaskContext,
        error::TaskError,
        outcome::{TaskOutput, TimeoutKind},
    },
    current::CurrentTask,
    log::TaskSpan,
    sync::{Handle, JoinHandle},
    task::StopRequest,
};
use crate::{
    RetryPolicy,
    attempt::{AttemptFault, guarded},
    error::{AttemptTimedOut, Panicked, catch_panic, panic_message},
};

/// The code that a task runs. It is polled within the task, where [`CurrentTask::get`] returns that task.
pub(crate) trait Work {
    type Value: Send + 'static;

    /// Returns whether dropping the work ends it.
    fn is_droppable(&self) -> bool {
        true
    }

    /// Polls the work; returns `None` if it was requested to stop before it began.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Self::Value, TaskError>>>;
}

pin_project! {
    /// A future.
    pub(crate) struct FutureWork<F> {
        #[pin]
        pub(crate) future: F,
    }
}

impl<F> Work for FutureWork<F>
where
    F: Future,
    F::Output: TaskOutput,
{
    type Value = <F::Output as TaskOutput>::Value;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Self::Value, TaskError>>> {
        self.project().future.poll(cx).map(|output| Some(result(output)))
    }
}

pin_project! {
    /// A closure until the first poll, and its future from then on, in the same memory.
    #[project = ContextWorkProjection]
    pub(crate) enum ContextWork<C, F> {
        Closure { make: Option<C> },
        Running { #[pin] future: F },
    }
}

impl<C, F> Work for ContextWork<C, F>
where
    C: FnOnce(TaskContext) -> F,
    F: Future,
    F::Output: TaskOutput,
{
    type Value = <F::Output as TaskOutput>::Value;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Self::Value, TaskError>>> {
        loop {
            match self.as_mut().project() {
                ContextWorkProjection::Closure { make } => match make.take().zip(TaskContext::current()) {
                    Some((make, task)) => {
                        let future = make(task);
                        self.set(Self::Running { future });
                    }
                    // The closure panicked: the supervisor never polls such a task again.
                    None => return Poll::Pending,
                },
                ContextWorkProjection::Running { future } => return future.poll(cx).map(|output| Some(result(output))),
            }
        }
    }
}

/// A closure that blocks its thread: at the first poll it moves to the runtime's threads for blocking work.
pub(crate) enum BlockingWork<C, O> {
    Closure(Option<C>),
    Running(JoinHandle<Option<O>>),
}

/// Neither the closure nor its output is ever pinned.
impl<C, O> Unpin for BlockingWork<C, O> {}

impl<C, O> Work for BlockingWork<C, O>
where
    C: FnOnce(TaskContext) -> O + Send + 'static,
    O: TaskOutput,
{
    type Value = O::Value;

    fn is_droppable(&self) -> bool {
        matches!(self, Self::Closure(_))
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Self::Value, TaskError>>> {
        loop {
            match &mut *self {
                Self::Closure(make) => match make.take().zip(CurrentTask::get()) {
                    Some((run, current)) => *self = Self::Running(spawn_blocking(run, current)),
                    None => return Poll::Pending,
                },
                Self::Running(join) => {
                    return Poll::Ready(match ready!(Pin::new(join).poll(cx)) {
                        Ok(output) => output.map(result),
                        Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                        // The runtime shut down before the closure began.
                        Err(_) => None,
                    });
                }
            }
        }
    }
}

fn spawn_blocking<C, O>(run: C, current: CurrentTask) -> JoinHandle<Option<O>>
where
    C: FnOnce(TaskContext) -> O + Send + 'static,
    O: TaskOutput,
{
    let span = TaskSpan::current();
    Handle::current().spawn_blocking(move || {
        // The task may have been stopped while it waited for a thread: then it must not begin.
        if current.task.stop_request() != StopRequest::None {
            return None;
        }
        let task = TaskContext::new(&current);
        let _entered = span.enter();
        Some(CurrentTask::scope(&mut Some(current), || run(task)))
    })
}

pin_project! {
    /// The attempts of a task that retries: a future whose output is the task's result.
    pub(crate) struct RetryingWork<F> {
        #[pin]
        pub(crate) future: F,
    }
}

impl<F, T> Work for RetryingWork<F>
where
    F: Future<Output = Result<T, TaskError>>,
    T: Send + 'static,
{
    type Value = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        self.project().future.poll(cx).map(Some)
    }
}

/// The settings of a task that retries.
#[derive(Clone, Debug)]
pub(crate) struct Retries {
    pub(crate) policy: RetryPolicy,
    pub(crate) attempt_timeout: Option<Duration>,
}

/// Makes attempts until one succeeds or the policy gives up.
pub(crate) async fn retrying<M, F>(mut make: M, retries: Retries) -> Result<<F::Output as TaskOutput>::Value, TaskError>
where
    M: FnMut(u32) -> F,
    F: Future,
    F::Output: TaskOutput,
{
    let mut delays = retries.policy.delays();
    let mut number = 1;
    loop {
        let error = match attempt(&mut make, number, retries.attempt_timeout).await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let delay = || match &error {
            TaskError::Failed(source) => delays.after(&**source),
            TaskError::Panicked { message } => delays.after(&Panicked { message: message.as_str().into() }),
            TaskError::TimedOut { after, .. } => delays.after(&AttemptTimedOut { after: *after }),
            _ => None,
        };
        // The policy's predicate is user code. Its panic is the task's, and is caught here because the error must not be
        // dropped while the thread unwinds: a second panic then would abort the process.
        let delay = match catch_unwind(AssertUnwindSafe(delay)) {
            Ok(delay) => delay,
            Err(payload) => {
                catch_panic(|| drop(error));
                return Err(TaskError::Panicked { message: panic_message(payload).into() });
            }
        };
        // `get` returns the task, because this future is only polled within it.
        let (Some(delay), Some(CurrentTask { registry, task })) = (delay, CurrentTask::get()) else {
            return Err(error);
        };
        registry.attempt_failed(&task, number, &error, delay);
        drop((registry, task));
        // The attempt is over: a panic of its error's destructor changes nothing any more.
        catch_panic(|| drop(error));
        if delay.is_zero() {
            // Attempts that never wait must not starve the thread's other tasks, nor keep their own from being stopped.
            yield_now().await;
        } else {
            sleep(delay).await;
        }
        number = CurrentTask::get().map_or(number + 1, |current| current.registry.attempt_started(&current.task));
    }
}

/// Makes one attempt: its panic and its timeout are its errors.
async fn attempt<M, F>(
    make: &mut M,
    number: u32,
    limit: Option<Duration>,
) -> Result<<F::Output as TaskOutput>::Value, TaskError>
where
    M: FnMut(u32) -> F,
    F: Future,
    F::Output: TaskOutput,
{
    // The closure is called within the guarded future, so that its panic is the attempt's as well.
    let mut attempt = Box::pin(async { Ok(make(number).await) });
    let ended = guarded(attempt.as_mut(), limit, identity).await;
    // A future that timed out is dropped here: its destructor may panic, which is the attempt's panic too.
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(attempt)));
    match (dropped, ended) {
        (Err(payload), _) | (Ok(()), Err(AttemptFault::Panicked(payload))) => {
            Err(TaskError::Panicked { message: panic_message(payload).into() })
        }
        (Ok(()), Err(AttemptFault::TimedOut { after })) => {
            Err(TaskError::TimedOut { after, limit: TimeoutKind::Attempt })
        }
        (Ok(()), Ok(output)) => result(output),
    }
}

fn result<O: TaskOutput>(output: O) -> Result<O::Value, TaskError> {
    output.into_result().map_err(TaskError::Failed)
}

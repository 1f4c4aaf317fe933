//! [`Body`]: what a task runs, of each kind.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::FutureExt;
use pin_project_lite::pin_project;
use tokio::{
    task::yield_now,
    time::{sleep, timeout},
};
use tracing::Span;

use super::{
    context::{Current, TaskContext},
    outcome::{TaskError, TaskOutput, TimeoutKind},
    record::Request,
    sync::{Handle, JoinHandle},
};
use crate::{
    RetryPolicy,
    error::{AttemptTimedOut, Panicked, panic_message},
};

/// What a task runs. It is polled within the task: [`Current::here`] is it.
pub(super) trait Body {
    type Value;

    /// Whether dropping the body ends it.
    fn is_droppable(&self) -> bool {
        true
    }

    /// `None`: it was told to stop before it began.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Self::Value, TaskError>>>;
}

pin_project! {
    /// A future.
    pub(super) struct Plain<F> {
        #[pin]
        pub(super) future: F,
    }
}

impl<F> Body for Plain<F>
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
    /// A closure until the first poll, its future from then on, in the same place.
    #[project = LazyProjection]
    pub(super) enum Lazy<C, F> {
        Unmade { make: Option<C> },
        Made { #[pin] future: F },
    }
}

impl<C, F> Body for Lazy<C, F>
where
    C: FnOnce(TaskContext) -> F,
    F: Future,
    F::Output: TaskOutput,
{
    type Value = <F::Output as TaskOutput>::Value;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Self::Value, TaskError>>> {
        loop {
            match self.as_mut().project() {
                LazyProjection::Unmade { make } => match make.take().zip(TaskContext::current()) {
                    Some((make, task)) => {
                        let future = make(task);
                        self.set(Self::Made { future });
                    }
                    // The closure panicked, and nobody polls a task again that did.
                    None => return Poll::Pending,
                },
                LazyProjection::Made { future } => return future.poll(cx).map(|output| Some(result(output))),
            }
        }
    }
}

/// A closure that blocks its thread: it is handed to the runtime's threads for that when its turn has come.
pub(super) enum Blocking<C, O> {
    Unmade(Option<C>),
    Running(JoinHandle<Option<O>>),
}

/// Neither is polled in its place.
impl<C, O> Unpin for Blocking<C, O> {}

impl<C, O> Body for Blocking<C, O>
where
    C: FnOnce(TaskContext) -> O + Send + 'static,
    O: TaskOutput,
{
    type Value = O::Value;

    fn is_droppable(&self) -> bool {
        matches!(self, Self::Unmade(_))
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Self::Value, TaskError>>> {
        loop {
            match &mut *self {
                Self::Unmade(make) => match make.take().zip(Current::here()) {
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

fn spawn_blocking<C, O>(run: C, current: Current) -> JoinHandle<Option<O>>
where
    C: FnOnce(TaskContext) -> O + Send + 'static,
    O: TaskOutput,
{
    let span = Span::current();
    Handle::current().spawn_blocking(move || {
        // It may have waited for a thread for longer than somebody wanted it.
        if current.task.request() != Request::None {
            return None;
        }
        let task = TaskContext::new(&current);
        Some(span.in_scope(|| Current::scope(&mut Some(current), || run(task))))
    })
}

pin_project! {
    /// A future that gives the end itself.
    pub(super) struct Whole<F> {
        #[pin]
        pub(super) future: F,
    }
}

impl<F, T> Body for Whole<F>
where
    F: Future<Output = Result<T, TaskError>>,
{
    type Value = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        self.project().future.poll(cx).map(Some)
    }
}

/// How a task is to retry.
#[derive(Clone, Debug)]
pub(super) struct Retries {
    pub(super) policy: RetryPolicy,
    pub(super) attempt_timeout: Option<Duration>,
}

/// Makes attempts until one succeeds or the policy gives up.
pub(super) async fn retrying<M, F>(mut make: M, retries: Retries) -> Result<<F::Output as TaskOutput>::Value, TaskError>
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
        let delay = match &error {
            TaskError::Failed(source) => delays.after(&**source),
            TaskError::Panicked { message } => delays.after(&Panicked { message: message.as_str().into() }),
            TaskError::TimedOut { after, .. } => delays.after(&AttemptTimedOut { after: *after }),
            _ => None,
        };
        // Always polled within its task.
        let (Some(delay), Some(Current { registry, task })) = (delay, Current::here()) else {
            return Err(error);
        };
        registry.attempt_failed(&task, number, &error, delay);
        drop((registry, task, error));
        if delay.is_zero() {
            // Attempts that never wait must not keep the thread, nor their task from being stopped.
            yield_now().await;
        } else {
            sleep(delay).await;
        }
        number = Current::here().map_or(number + 1, |current| current.registry.retried(&current.task));
    }
}

/// One attempt: its panic and its timeout are its errors.
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
    let timed_out = |after| TaskError::TimedOut { after, limit: TimeoutKind::Attempt };
    if limit == Some(Duration::ZERO) {
        return Err(timed_out(Duration::ZERO));
    }
    // The closure's panic is the attempt's as well.
    let mut whole = pin!(Some(AssertUnwindSafe(async { make(number).await }).catch_unwind()));
    let polled = poll_fn(|cx| whole.as_mut().as_pin_mut().map_or(Poll::Pending, |whole| whole.poll(cx)));
    let ended = match limit {
        None => Ok(polled.await),
        Some(limit) => timeout(limit, polled).await.map_err(|_| timed_out(limit)),
    };
    // And so is that of its destructor, where it is dropped half-way.
    match (catch_unwind(AssertUnwindSafe(|| whole.set(None))), ended) {
        (Err(payload), _) | (Ok(()), Ok(Err(payload))) => {
            Err(TaskError::Panicked { message: panic_message(payload).into() })
        }
        (Ok(()), Ok(Ok(output))) => result(output),
        (Ok(()), Err(error)) => Err(error),
    }
}

fn result<O: TaskOutput>(output: O) -> Result<O::Value, TaskError> {
    output.into_result().map_err(TaskError::Failed)
}

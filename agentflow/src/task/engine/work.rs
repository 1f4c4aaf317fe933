//! [`Work`]: the code that a task runs, of each kind.

use std::{
    convert::identity,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};
use tracing::Span;

use super::{
    super::{context::TaskContext, error::TaskError, outcome::TimeoutKind, output::TaskOutput},
    current::CurrentTask,
    end::finish,
    sync::{Handle, JoinHandle, Mutex},
};
use crate::{
    RetryPolicy,
    attempt::{AttemptFault, guarded},
    error::{AttemptTimedOut, Panicked},
    panics::catch_panic,
    span::GuardedSpan,
};

/// The code that a task runs. It is polled within the task, where [`CurrentTask::get`] returns that task.
pub(crate) trait Work {
    type Value: Send + 'static;

    /// Set if the work itself reports when it begins, because that is not its first poll.
    const BEGINS_ITSELF: bool = false;

    /// Returns whether dropping the work ends it. If so, it neither begins nor goes on from then on.
    fn revoke(self: Pin<&mut Self>) -> bool {
        true
    }

    /// Prepares the work for being dropped by its runtime. Returns the result if there already is one, and `Pending` if
    /// the work goes on and ends the task itself.
    fn abandon(self: Pin<&mut Self>) -> Poll<Option<Result<Self::Value, TaskError>>> {
        Poll::Ready(None)
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

/// A closure that blocks its thread. At the first poll it is offered to the runtime's threads for blocking work, and it
/// begins when one of them calls it.
pub(crate) struct BlockingWork<C, T> {
    cell: Arc<ClosureCell<C, T>>,
    /// Present once the closure was offered to the threads. It only wakes the supervisor; the result is in the cell.
    join: Option<JoinHandle<()>>,
    /// The closure, once it was taken back from the cell.
    revoked: Option<C>,
}

/// The closure, shared by the supervisor and the thread that may call it. Both may want it at the same moment, one to
/// drop it and the other to call it; the one that takes it out of the mutex wins, and the other finds it gone.
struct ClosureCell<C, T>(Mutex<ClosureState<C, T>>);

enum ClosureState<C, T> {
    /// No thread has called the closure yet.
    Waiting(C),
    /// A thread runs the closure.
    Running,
    /// A thread runs the closure, and ends the task, because the runtime has dropped the supervisor.
    Abandoned,
    /// The closure has returned, and the supervisor has not seen that yet.
    Returned(Result<T, TaskError>),
    /// The supervisor has taken the closure or its result.
    Taken,
}

impl<C, T> BlockingWork<C, T> {
    pub(crate) fn new(closure: C) -> Self {
        let cell = Arc::new(ClosureCell(Mutex::new(ClosureState::Waiting(closure))));
        Self { cell, join: None, revoked: None }
    }
}

impl<C, T> ClosureCell<C, T> {
    /// Takes the closure if it waits, and leaves `next` in its place.
    fn take_closure(&self, next: ClosureState<C, T>) -> Option<C> {
        let mut state = self.0.lock();
        match std::mem::replace(&mut *state, ClosureState::Taken) {
            ClosureState::Waiting(closure) => {
                *state = next;
                Some(closure)
            }
            other => {
                *state = other;
                None
            }
        }
    }

    /// Takes the result if the closure has returned.
    fn take_result(&self) -> Option<Result<T, TaskError>> {
        let mut state = self.0.lock();
        match std::mem::replace(&mut *state, ClosureState::Taken) {
            ClosureState::Returned(result) => Some(result),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Leaves the result to the supervisor; returns it if there is no supervisor any more.
    fn leave_result(&self, result: Result<T, TaskError>) -> Option<Result<T, TaskError>> {
        let mut state = self.0.lock();
        if matches!(*state, ClosureState::Abandoned) {
            return Some(result);
        }
        *state = ClosureState::Returned(result);
        None
    }
}

impl<C, T> Drop for BlockingWork<C, T> {
    fn drop(&mut self) {
        // The runtime's queue holds the cell until a thread is free, but not what the closure has captured.
        drop(self.cell.take_closure(ClosureState::Taken));
    }
}

/// Neither the closure nor its output is ever pinned.
impl<C, T> Unpin for BlockingWork<C, T> {}

impl<C, O> Work for BlockingWork<C, O::Value>
where
    C: FnOnce(TaskContext) -> O + Send + 'static,
    O: TaskOutput,
{
    type Value = O::Value;

    const BEGINS_ITSELF: bool = true;

    fn revoke(mut self: Pin<&mut Self>) -> bool {
        if self.revoked.is_none() {
            self.revoked = self.cell.take_closure(ClosureState::Taken);
        }
        self.revoked.is_some()
    }

    fn abandon(self: Pin<&mut Self>) -> Poll<Option<Result<O::Value, TaskError>>> {
        let mut state = self.cell.0.lock();
        match std::mem::replace(&mut *state, ClosureState::Taken) {
            ClosureState::Running => {
                *state = ClosureState::Abandoned;
                Poll::Pending
            }
            ClosureState::Returned(result) => Poll::Ready(Some(result)),
            other => {
                *state = other;
                Poll::Ready(None)
            }
        }
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<O::Value, TaskError>>> {
        if self.join.is_none() {
            let Some(current) = CurrentTask::get() else {
                // Unreachable: the work is only polled within its task.
                return Poll::Pending;
            };
            self.join = Some(spawn_blocking(Arc::clone(&self.cell), current));
        }
        let Some(join) = &mut self.join else {
            return Poll::Pending;
        };
        // The runtime may have shut down before the closure began, or the task was stopped before: then there is no
        // result.
        let _ = ready!(Pin::new(join).poll(cx));
        Poll::Ready(self.cell.take_result())
    }
}

fn spawn_blocking<C, O>(cell: Arc<ClosureCell<C, O::Value>>, current: CurrentTask) -> JoinHandle<()>
where
    C: FnOnce(TaskContext) -> O + Send + 'static,
    O: TaskOutput,
{
    let span = GuardedSpan::new(Span::current);
    Handle::current().spawn_blocking(move || {
        // A task that was stopped while it waited for a thread must not begin. A stop that comes later finds the closure
        // taken.
        if !current.task.may_begin() {
            return;
        }
        let Some(closure) = cell.take_closure(ClosureState::Running) else {
            return;
        };
        let _entered = span.enter();
        current.registry.task_started(&current.task);
        let task = TaskContext::new(&current);
        let mut scope = Some(current.clone());
        let run = || CurrentTask::scope(&mut scope, || result(closure(task)));
        let result = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|payload| Err(TaskError::panicked(payload)));
        if let Some(result) = cell.leave_result(result) {
            finish(&current, result);
        }
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
    let mut delays = retries.policy.delays(Instant::now());
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
                return Err(TaskError::panicked(payload));
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
    let ended = guarded(attempt.as_mut(), limit, |_| Poll::Ready(Duration::ZERO), identity).await;
    // A future that timed out is dropped here: its destructor may panic, which is the attempt's panic too.
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(attempt)));
    match (dropped, ended) {
        (Err(payload), _) | (Ok(()), Err(AttemptFault::Panicked(payload))) => Err(TaskError::panicked(payload)),
        (Ok(()), Err(AttemptFault::TimedOut { after })) => {
            Err(TaskError::TimedOut { after, limit: TimeoutKind::Attempt })
        }
        (Ok(()), Ok(output)) => result(output),
    }
}

fn result<O: TaskOutput>(output: O) -> Result<O::Value, TaskError> {
    output.into_result().map_err(TaskError::Failed)
}

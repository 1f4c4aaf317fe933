//! [`TaskHandle`]: the handle of a spawned task.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use super::{
    engine::task::{StopRequest, TaskRecord, TaskResult},
    error::TaskError,
    info::task_accessors,
};

/// A handle of a spawned task: await it for the task's result, cancel the task with it, or drop it and let the task go
/// on by itself.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let tasks = agentflow::BackgroundTaskManager::new();
/// let handle = tasks.create_task(async { "42".parse::<u32>() }).name("parse").spawn()?;
/// assert_eq!(handle.name(), "parse");
/// assert_eq!(handle.await?, 42);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// Awaiting it returns a [`TaskError`] if the task did not complete.
///
/// # Panics
///
/// Polling it again after it has returned the result panics, as with most futures.
///
/// # Cancel safety
///
/// Awaiting `&mut handle` is safe to drop: nothing is lost.
pub struct TaskHandle<T> {
    task: Arc<TaskRecord>,
    /// Returns the result with its type. A function pointer, so that the handle itself has no bounds on `T`.
    downcast: fn(TaskResult) -> Option<Result<T, TaskError>>,
    abort_on_drop: bool,
}

impl<T> TaskHandle<T> {
    task_accessors!();

    /// Creates the only handle of a task whose result is a `Result<T, TaskError>`.
    pub(super) fn new(task: Arc<TaskRecord>) -> Self
    where
        T: 'static,
    {
        let downcast = |result: TaskResult| result.downcast().ok().map(|result| *result);
        Self { task, downcast, abort_on_drop: false }
    }

    /// Returns whether the task has ended. Then the handle is ready: awaiting it returns at once.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.task.has_ended()
    }

    /// Cancels the task; returns at once.
    ///
    /// A task with a [`TaskContext`](crate::TaskContext) is informed through its token, and dropped if it still runs
    /// after its [grace period](crate::task::TaskBuilder::grace_period). Any other task is dropped where it awaits. A
    /// blocking task that has begun can only be informed. A task that has ended stays as it is.
    pub fn cancel(&self) {
        self.task.request_stop(StopRequest::Cancel);
    }

    /// Makes dropping the handle abort the task: the task is dropped where it awaits, without a grace period.
    #[must_use = "the handle that is returned is the one that aborts when dropped"]
    pub fn abort_on_drop(mut self) -> Self {
        self.abort_on_drop = true;
        self
    }
}

impl<T> Future for TaskHandle<T> {
    type Output = Result<T, TaskError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(result) = ready!(self.task.poll_result(cx)) else {
            panic!("the handle of task #{} was awaited after it had returned the result", self.id());
        };
        // No task has a result of another type.
        Poll::Ready((self.downcast)(result).unwrap_or(Err(TaskError::Aborted)))
    }
}

impl<T> Drop for TaskHandle<T> {
    fn drop(&mut self) {
        if self.abort_on_drop {
            self.task.request_stop(StopRequest::Abort);
        }
        self.task.drop_handle();
    }
}

impl<T> fmt::Debug for TaskHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskHandle")
            .field("id", &self.id().0)
            .field("name", &self.name())
            .field("outcome", &self.task.end().map(|end| end.outcome))
            .finish_non_exhaustive()
    }
}

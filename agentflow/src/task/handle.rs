//! [`TaskHandle`]: the spawner's end of a task.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use super::{
    info::TaskId,
    outcome::{TaskError, TaskOutcome},
    record::{End, Request, Task},
    sync::JoinHandle,
};

/// The spawner's end of a task: await it for what the task returned, cancel the task, or drop the handle and let the
/// task go on by itself.
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
/// Awaiting it gives a [`TaskError`] where the task did not complete.
///
/// # Cancel safety
///
/// Awaiting `&mut handle` is safe to drop: nothing is lost.
pub struct TaskHandle<T> {
    task: Arc<Task>,
    join: JoinHandle<Result<T, TaskError>>,
    abort_on_drop: bool,
}

impl<T> TaskHandle<T> {
    pub(super) fn new(task: Arc<Task>, join: JoinHandle<Result<T, TaskError>>) -> Self {
        Self { task, join, abort_on_drop: false }
    }

    /// The task's id.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.task.at.id
    }

    /// The task's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.task.spec.name
    }

    /// Whether the task has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.task.has_ended()
    }

    /// Cancels the task; returns at once.
    ///
    /// A task with a [`TaskContext`](crate::TaskContext) is told through its token, and dropped if it still runs
    /// after the manager's [grace](crate::task::TaskManagerOptions::grace_period), or its
    /// [own](crate::task::TaskBuilder::grace_period). Any other task is dropped where it awaits. A blocking task that has
    /// begun can only be told. A task that has ended stays as it is.
    pub fn cancel(&self) {
        self.task.ask(Request::Cancel);
    }

    /// From now on, dropping the handle aborts the task: it is dropped where it awaits, without any grace.
    #[must_use = "the handle that is returned is the one that aborts when dropped"]
    pub fn abort_on_drop(mut self) -> Self {
        self.abort_on_drop = true;
        self
    }
}

impl<T> Future for TaskHandle<T> {
    type Output = Result<T, TaskError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(Pin::new(&mut self.join).poll(cx)) {
            Ok(result) => result,
            // The runtime dropped the task. Its destructor left the reason in the record.
            Err(_) => Err(match self.task.end() {
                Some(End { outcome: TaskOutcome::Cancelled, .. }) => TaskError::Cancelled,
                Some(End { outcome: TaskOutcome::Panicked, error, .. }) => {
                    TaskError::Panicked { message: error.as_deref().unwrap_or_default().to_owned() }
                }
                _ => TaskError::Aborted,
            }),
        })
    }
}

impl<T> Drop for TaskHandle<T> {
    fn drop(&mut self) {
        if self.abort_on_drop {
            self.task.ask(Request::Abort);
        }
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

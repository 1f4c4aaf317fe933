//! [`TaskAttempt`]: the inputs of one attempt of a durable task.

use std::time::SystemTime;

use crate::{
    run_id::RunId,
    store::StoredTaskId,
    task::{CancellationToken, TaskContext},
};

/// The inputs of one attempt of a durable task, beside its arguments.
#[derive(Debug)]
#[non_exhaustive]
pub struct TaskAttempt<'a, C> {
    /// The app's services.
    pub services: &'a C,
    /// The task's access to its own id, cancellation and progress.
    pub task: &'a DurableTaskContext,
}

// The impls are not derived, because the services need not be `Copy`.
impl<C> Clone for TaskAttempt<'_, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for TaskAttempt<'_, C> {}

impl<'a, C> TaskAttempt<'a, C> {
    /// Creates the inputs of an attempt.
    #[must_use]
    pub const fn new(services: &'a C, task: &'a DurableTaskContext) -> Self {
        Self { services, task }
    }
}

/// A durable task's access to its own id, cancellation and progress: the parameter `task` of a
/// [`#[task]`](macro@crate::task).
#[derive(Clone, Debug)]
pub struct DurableTaskContext {
    id: StoredTaskId,
    attempt: u32,
    scheduled_for: Option<SystemTime>,
    task: TaskContext,
}

impl DurableTaskContext {
    /// Creates the context of a task that runs as the background task `task`.
    #[must_use]
    pub fn new(id: StoredTaskId, attempt: u32, task: TaskContext) -> Self {
        Self { id, attempt, scheduled_for: None, task }
    }

    /// Sets the time for which a schedule made the task.
    #[must_use]
    pub fn with_scheduled_for(self, time: SystemTime) -> Self {
        Self { scheduled_for: Some(time), ..self }
    }

    /// Returns the id of the stored task, the same in every attempt.
    #[must_use]
    pub fn id(&self) -> StoredTaskId {
        self.id
    }

    /// Returns the id for a run that the task starts, the same in every attempt: a run with it happens once.
    #[must_use]
    pub fn run_id(&self) -> RunId {
        RunId::from_u128(self.id.as_u128())
    }

    /// Returns the number of this attempt: one more than the number of failed ones.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Returns the due time for which a schedule made the task, which may be earlier than the present time.
    #[must_use]
    pub fn scheduled_for(&self) -> Option<SystemTime> {
        self.scheduled_for
    }

    /// Reports the task's progress: see [`TaskContext::progress`].
    pub fn progress(&self, fraction: f64, message: impl Into<String>) {
        self.task.progress(fraction, message);
    }

    /// Returns whether the task was asked to stop: it was cancelled, or the app shuts down.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.task.is_cancelled()
    }

    /// Waits until the task is asked to stop. It then has its grace period to end by itself.
    ///
    /// # Cancel safety
    ///
    /// Safe to drop.
    pub async fn cancelled(&self) {
        self.task.cancelled().await;
    }

    /// Returns the task's token, to pass to the functions that it calls.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        self.task.token()
    }

    /// Returns the background task that runs this attempt in this process.
    #[must_use]
    pub fn context(&self) -> &TaskContext {
        &self.task
    }
}

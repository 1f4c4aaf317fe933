//! [`TaskContext`]: a task's access to its own cancellation, progress and manager.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{
    engine::{current::CurrentTask, task::TaskRecord},
    id::TaskId,
    manager::BackgroundTaskManager,
    progress::TaskProgress,
};

/// A task's access to its own cancellation, progress and id, and a manager to spawn children with.
///
/// The closures of [`create_task_with_context`](BackgroundTaskManager::create_task_with_context) and
/// [`create_blocking_task`](BackgroundTaskManager::create_blocking_task) receive it; any other task gets it from
/// [`current`](Self::current).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let tasks = agentflow::BackgroundTaskManager::new();
/// let handle = tasks
///     .create_task_with_context(|task| async move {
///         task.cancelled().await;
///         println!("saving what there is"); // then return: this is the task's own end
///     })
///     .spawn()?;
/// handle.cancel();
/// handle.await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TaskContext {
    token: CancellationToken,
    /// The manager for the task, which refers to the task's record.
    manager: BackgroundTaskManager,
}

impl TaskContext {
    pub(super) fn new(current: &CurrentTask) -> Self {
        Self {
            token: current.task.spec.token.clone().unwrap_or_default(),
            manager: BackgroundTaskManager::for_task(current),
        }
    }

    fn record(&self) -> &Arc<TaskRecord> {
        let Some(task) = self.manager.holder() else {
            unreachable!("`new` creates the manager for a task");
        };
        task
    }

    /// Returns the context of the task that this is called in; `None` outside of a task, and in futures that a task
    /// spawned on the runtime itself.
    ///
    /// A task that was not created with a context is dropped when it is cancelled: its token is never cancelled.
    ///
    /// ```
    /// use agentflow::TaskContext;
    ///
    /// async fn upload(chunks: u32) {
    ///     for chunk in 1..=chunks {
    ///         if let Some(task) = TaskContext::current() {
    ///             task.progress(f64::from(chunk) / f64::from(chunks), "uploading");
    ///         }
    ///     }
    /// }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # assert!(TaskContext::current().is_none());
    /// # let tasks = agentflow::BackgroundTaskManager::new();
    /// tasks.create_task(upload(3)).spawn()?.await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn current() -> Option<Self> {
        CurrentTask::get().as_ref().map(Self::new)
    }

    /// Returns the task's id.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.record().id
    }

    /// Returns the number of the current attempt, from 1. More than 1 is for tasks that
    /// [retry](BackgroundTaskManager::create_retrying_task).
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.record().attempt()
    }

    /// Reports the task's progress: `task.progress(0.4, "uploading")`. It appears in
    /// [`task_info`](BackgroundTaskManager::task_info), as an [event](BackgroundTaskManager::events) and in the
    /// [stream](crate::run::EventKind::TaskProgress) of the task's run, and counts as a [`heartbeat`](Self::heartbeat).
    ///
    /// `fraction` is clamped to 0..=1.
    pub fn progress(&self, fraction: f64, message: impl Into<String>) {
        let progress = Arc::new(TaskProgress::new(fraction, message.into()));
        let task = self.record();
        if task.beat(self.manager.registry.now(), Some(Arc::clone(&progress))) {
            self.manager.registry.task_progressed(task, progress);
        }
    }

    /// Reports that the task is alive, which restarts its [`idle_timeout`](crate::task::TaskBuilder::idle_timeout).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let tasks = agentflow::BackgroundTaskManager::new();
    /// let poll = tasks
    ///     .create_task_with_context(|task| async move {
    ///         for _ in 0..10 {
    ///             tokio::time::sleep(Duration::from_millis(3)).await;
    ///             task.heartbeat();
    ///         }
    ///     })
    ///     .idle_timeout(Duration::from_millis(5))
    ///     .spawn()?;
    /// assert!(poll.await.is_ok());
    /// # Ok(())
    /// # }
    /// ```
    pub fn heartbeat(&self) {
        self.record().beat(self.manager.registry.now(), None);
    }

    /// Waits until the task is cancelled, for whatever reason, or its timeout is over.
    ///
    /// A cancelled task has its [grace period](crate::task::TaskBuilder::grace_period) to end by itself; then it is
    /// dropped. After a timeout it is dropped at once.
    ///
    /// # Cancel safety
    ///
    /// Safe to drop.
    pub async fn cancelled(&self) {
        self.token.cancelled().await;
    }

    /// Returns whether the task was cancelled: for loops that don't await, and for blocking tasks.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Returns the task's token, to pass to the functions that it calls. Cancelling the token informs the futures that
    /// wait for it, but not the manager: to cancel the task, use
    /// [`TaskHandle::cancel`](crate::task::TaskHandle::cancel).
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Returns the task's manager, to spawn children with: they are accepted as long as this task lives, even while the
    /// manager drains. It doesn't keep the manager alive.
    #[must_use]
    pub fn manager(&self) -> &BackgroundTaskManager {
        &self.manager
    }
}

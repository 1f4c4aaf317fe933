//! [`TaskContext`]: what a task knows of itself.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{
    info::TaskId,
    manager::BackgroundTaskManager,
    record::{Task, TaskRef},
    registry::Registry,
};

tokio::task_local! {
    /// Which task is running here. Set around every poll and the drop of a task, and in its blocking closure.
    pub(super) static CURRENT: Current;
}

#[derive(Clone, Debug)]
pub(super) struct Current {
    pub(super) registry: Arc<Registry>,
    pub(super) task: Arc<Task>,
}

impl Current {
    /// The task of this registry that is running here: the task of another manager is no relative.
    pub(super) fn task_of(registry: &Arc<Registry>) -> Option<TaskRef> {
        CURRENT.try_with(|current| Arc::ptr_eq(&current.registry, registry).then_some(current.task.at)).ok().flatten()
    }
}

/// What a task is given that was made with [`create_task_with`](BackgroundTaskManager::create_task_with) or
/// [`create_blocking_task`](BackgroundTaskManager::create_blocking_task): its cancellation, its id, and a manager to
/// spawn children with.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let tasks = agentflow::BackgroundTaskManager::new();
/// let handle = tasks
///     .create_task_with(|task| async move {
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
    id: TaskId,
    token: CancellationToken,
    manager: BackgroundTaskManager,
}

impl TaskContext {
    pub(super) fn new(current: &Current) -> Self {
        Self {
            id: current.task.at.id,
            // Every task that gets a context has a token; see `Spec::token`.
            token: current.task.spec.token.clone().unwrap_or_default(),
            manager: BackgroundTaskManager::within(current),
        }
    }

    /// The task's id.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Resolves when the task is cancelled, for whatever reason, or its timeout is over. Cancel safe.
    ///
    /// From then on the task has the manager's [grace](crate::TaskManagerOptions::grace) to end by itself; then it
    /// is dropped. After a timeout it is dropped at once.
    pub async fn cancelled(&self) {
        self.token.cancelled().await;
    }

    /// Whether the task was cancelled: for loops that don't await, and for blocking tasks.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }

    /// The task's token, to be handed to what it calls. Cancelling the token tells whoever listens to it; the
    /// manager doesn't: for that, use [`TaskHandle::cancel`](crate::TaskHandle::cancel).
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// The task's manager, to spawn children with: they are accepted as long as this task lives, even while the
    /// manager drains. It doesn't keep the manager alive.
    #[must_use]
    pub fn manager(&self) -> &BackgroundTaskManager {
        &self.manager
    }
}

//! [`TaskContext`]: what a task knows of itself.

use std::{cell::RefCell, sync::Arc};

use tokio_util::sync::CancellationToken;

use super::{
    info::{TaskId, TaskProgress},
    manager::BackgroundTaskManager,
    record::{Task, TaskRef},
    registry::Registry,
    sync,
};

sync::thread_local! {
    /// Which task is running here: set around every poll and the drop of a task, and in its blocking closure.
    static HERE: RefCell<Option<Current>> = const { RefCell::new(None) };
}

#[derive(Clone, Debug)]
pub(super) struct Current {
    pub(super) registry: Arc<Registry>,
    pub(super) task: Arc<Task>,
}

impl Current {
    /// Does something as this task.
    pub(super) fn scope<T>(current: &mut Option<Self>, run: impl FnOnce() -> T) -> T {
        /// Swaps back, even if there is a panic.
        struct Left<'a>(&'a mut Option<Current>);

        impl Drop for Left<'_> {
            fn drop(&mut self) {
                swap(self.0);
            }
        }

        // A thread that ends has no place for it any more; and nobody to ask for it.
        fn swap(current: &mut Option<Current>) {
            let _ = HERE.try_with(|here| std::mem::swap(&mut *here.borrow_mut(), current));
        }

        swap(current);
        let _left = Left(current);
        run()
    }

    pub(super) fn here() -> Option<Self> {
        HERE.try_with(|here| here.borrow().clone()).ok().flatten()
    }

    /// The task of this registry that is running here: the task of another manager is no relative.
    pub(super) fn task_of(registry: &Arc<Registry>) -> Option<TaskRef> {
        let task = |here: &RefCell<Option<Self>>| {
            let here = here.borrow();
            here.as_ref().filter(|current| Arc::ptr_eq(&current.registry, registry)).map(|current| current.task.at)
        };
        HERE.try_with(task).ok().flatten()
    }
}

/// What a task is given that was made with [`create_task_with_context`](BackgroundTaskManager::create_task_with_context) or
/// [`create_blocking_task`](BackgroundTaskManager::create_blocking_task): its cancellation, its progress, its id, and a
/// manager to spawn children with. Any other task finds it with [`current`](Self::current).
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
    task: Arc<Task>,
    token: CancellationToken,
    manager: BackgroundTaskManager,
}

impl TaskContext {
    pub(super) fn new(current: &Current) -> Self {
        Self {
            task: Arc::clone(&current.task),
            token: current.task.spec.token.clone().unwrap_or_default(),
            manager: BackgroundTaskManager::within(current),
        }
    }

    /// The context of the task that this is called in; `None` outside of a task, and in what a task spawned past the
    /// manager.
    ///
    /// A task that was not made with a context is dropped when it is cancelled: its token is never cancelled.
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
        Current::here().as_ref().map(Self::new)
    }

    /// The task's id.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.task.at.id
    }

    /// Which attempt this is, from 1. More than 1 is for tasks that
    /// [retry](BackgroundTaskManager::create_retrying_task).
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.task.attempt()
    }

    /// Tells how far the task is: `task.progress(0.4, "uploading")`. It is seen in
    /// [`task_info`](BackgroundTaskManager::task_info) and by those who [watch](BackgroundTaskManager::events), and is a
    /// [`heartbeat`](Self::heartbeat).
    ///
    /// `fraction` is from 0 to 1; what lies beyond counts as the nearest.
    pub fn progress(&self, fraction: f64, message: impl Into<String>) {
        let progress = Arc::new(TaskProgress::new(fraction, message.into()));
        if self.task.sign(Some(Arc::clone(&progress))) {
            self.manager.registry.progressed(&self.task, progress);
        }
    }

    /// Says that the task is alive, for its [`idle_timeout`](crate::task::TaskBuilder::idle_timeout).
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
        self.task.sign(None);
    }

    /// Resolves when the task is cancelled, for whatever reason, or its timeout is over.
    ///
    /// From then on the task has the manager's [grace](crate::task::TaskManagerOptions::grace_period), or its
    /// [own](crate::task::TaskBuilder::grace_period), to end by itself; then it is dropped. After a timeout it is dropped at
    /// once.
    ///
    /// # Cancel safety
    ///
    /// Safe to drop.
    pub async fn cancelled(&self) {
        self.token.cancelled().await;
    }

    /// Whether the task was cancelled: for loops that don't await, and for blocking tasks.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }

    /// The task's token, to be handed to what it calls. Cancelling the token tells whoever listens to it; the
    /// manager doesn't: for that, use [`TaskHandle::cancel`](crate::task::TaskHandle::cancel).
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

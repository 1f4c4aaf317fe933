//! [`TaskGroup`]: tasks that are bounded, awaited and cancelled together.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::{StreamExt, stream::FuturesUnordered};

use super::{
    builder::TaskBuilder,
    error::{SpawnError, TaskError},
    handle::TaskHandle,
    id::TaskId,
};

/// Tasks that are bounded, awaited and cancelled together: a sliding window over many jobs, or the parts of one job.
///
/// The group keeps the handles of its tasks. The tasks may belong to one manager or to several, and each has its own
/// name, timeout and key as any other task. Their results are kept until they are taken with [`next`](Self::next) or
/// [`wait`](Self::wait).
///
/// To wait for tasks within a bound, and without their results, use
/// [`wait_for`](crate::BackgroundTaskManager::wait_for).
///
/// Dropping the group leaves the tasks running; call [`cancel`](Self::cancel) first to end them.
///
/// ```
/// use agentflow::{BackgroundTaskManager, task::TaskGroup};
///
/// async fn import(page: u32) -> Result<u32, std::io::Error> {
///     tokio::time::sleep(std::time::Duration::from_millis(1)).await;
///     Ok(page * 10)
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tasks = BackgroundTaskManager::new();
/// let mut pages = TaskGroup::new().max_running(25);
/// for page in 1..=100 {
///     pages.spawn(tasks.create_task(import(page)).name("import")).await?; // never more than 25 at once
/// }
/// let mut records = 0;
/// while let Some(page) = pages.next().await {
///     records += page.result?;
/// }
/// assert_eq!(records, 50_500);
/// # Ok(())
/// # }
/// ```
#[must_use = "the results of the tasks are lost if the group is dropped"]
pub struct TaskGroup<T> {
    max_running: Option<usize>,
    running: FuturesUnordered<Member<T>>,
    ended: VecDeque<GroupResult<T>>,
}

/// The end of one task of a [`TaskGroup`].
#[derive(Debug)]
#[non_exhaustive]
pub struct GroupResult<T> {
    /// The task's id.
    pub id: TaskId,
    /// The task's name.
    pub name: String,
    /// The value that the task returned, or the reason why there is none.
    pub result: Result<T, TaskError>,
}

/// A handle that resolves to the task's id and name beside its result.
struct Member<T>(TaskHandle<T>);

impl<T> Future for Member<T> {
    type Output = GroupResult<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|result| GroupResult {
            id: self.0.id(),
            name: self.0.name().to_owned(),
            result,
        })
    }
}

impl<T> TaskGroup<T> {
    /// Creates an empty group without a limit.
    pub fn new() -> Self {
        Self { max_running: None, running: FuturesUnordered::new(), ended: VecDeque::new() }
    }

    /// Sets how many tasks of the group may be live at the same time; zero counts as one. The limit holds for the group
    /// alone, within the manager's own limits.
    pub fn max_running(mut self, tasks: usize) -> Self {
        self.max_running = Some(tasks.max(1));
        self
    }

    /// Spawns a task in the group. Waits first while [`max_running`](Self::max_running) tasks of the group are live.
    ///
    /// # Errors
    ///
    /// [`SpawnError`], as for [`TaskBuilder::spawn`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future while it waits drops the new task unspawned; no result of another task is lost.
    pub async fn spawn<W>(&mut self, task: TaskBuilder<'_, T, W>) -> Result<TaskId, SpawnError> {
        while self.max_running.is_some_and(|max| self.running.len() >= max) {
            // The result is stored before the next await, so that a dropped future loses none.
            self.ended.extend(self.running.next().await);
        }
        let handle = task.spawn()?;
        let id = handle.id();
        self.running.push(Member(handle));
        Ok(id)
    }

    /// Waits for the next task to end and returns its result, in the order in which the tasks end; `None` if the group
    /// has no task left.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no result.
    pub async fn next(&mut self) -> Option<GroupResult<T>> {
        match self.ended.pop_front() {
            Some(ended) => Some(ended),
            None => self.running.next().await,
        }
    }

    /// Waits until all tasks of the group have ended, and returns the results that were not taken yet, in the order in
    /// which the tasks ended.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no result: another call returns them all.
    pub async fn wait(&mut self) -> Vec<GroupResult<T>> {
        while let Some(ended) = self.running.next().await {
            self.ended.push_back(ended);
        }
        std::mem::take(&mut self.ended).into()
    }

    /// Cancels the tasks of the group that have not ended, as [`TaskHandle::cancel`] does; returns at once. Their results
    /// can still be taken.
    pub fn cancel(&self) {
        for member in &self.running {
            member.0.cancel();
        }
    }

    /// Returns the number of tasks whose result was not taken yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.running.len() + self.ended.len()
    }

    /// Returns whether the result of every task was taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Default for TaskGroup<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for TaskGroup<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskGroup")
            .field("max_running", &self.max_running)
            .field("running", &self.running.len())
            .field("ended", &self.ended.len())
            .finish()
    }
}

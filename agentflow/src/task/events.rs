//! [`TaskEventStream`]: what happens to tasks, as it happens, for whoever watches.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;
use futures_util::stream::{self, StreamExt};
use tokio::sync::broadcast::error::RecvError;

use super::{
    info::{FinishedTask, TaskInfo},
    manager::BackgroundTaskManager,
};

/// Something that happened to a task.
///
/// The events of one task come in order: spawned, started, its attempts and its progress, ended. Only progress that another
/// thread tells for the task in the moment of its end may come after that. Cheap to clone.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TaskEvent {
    /// It was accepted. It may have to wait for its turn.
    Spawned(TaskInfo),
    /// It began to run.
    Started(TaskInfo),
    /// An attempt failed, and there will be another one.
    #[non_exhaustive]
    AttemptFailed {
        /// The task.
        task: TaskInfo,
        /// Which attempt it was, from 1.
        attempt: u32,
        /// What the attempt's error said, with its sources.
        error: Arc<str>,
        /// The pause before the next attempt.
        retry_in: Duration,
    },
    /// It told its [progress](TaskInfo::progress).
    Progress(TaskInfo),
    /// It ended.
    Ended(FinishedTask),
    /// The watcher was too slow, and did not get this many events.
    Missed(u64),
}

/// What happens to a manager's tasks from [`watch`](BackgroundTaskManager::events) on: a [`Stream`] of [`TaskEvent`]s.
///
/// It ends when the manager is closed and its last task has ended.
///
/// ```
/// use agentflow::{BackgroundTaskManager, task::{TaskEvent, TaskManagerOptions}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().event_buffer(2));
/// let mut events = tasks.events();
/// tasks.create_task(async {}).name("quick").spawn()?;
/// tasks.close(None).await;
///
/// // That it was spawned is one event more than were kept.
/// assert!(matches!(events.next().await, Some(TaskEvent::Missed(1))));
/// assert!(matches!(events.next().await, Some(TaskEvent::Started(_))));
/// assert!(matches!(events.next().await, Some(TaskEvent::Ended(_))));
/// assert!(events.next().await.is_none());
/// # Ok(())
/// # }
/// ```
#[must_use = "events are kept for this watcher until it reads them"]
pub struct TaskEventStream(Pin<Box<dyn Stream<Item = TaskEvent> + Send + Sync>>);

impl BackgroundTaskManager {
    /// What happens to all tasks from now on.
    ///
    /// A task never waits for a watcher: one that is more than
    /// [`event_buffer`](crate::task::TaskManagerOptions::event_buffer) events behind gets [`TaskEvent::Missed`] with their
    /// number, and goes on with the oldest that are kept. While nobody watches, events cost nothing.
    ///
    /// Nor do those who wait for the tasks wait for the events: the last [`Ended`](TaskEvent::Ended) may come a moment
    /// after [`wait_for_all`](Self::wait_for_all) or [`close`](Self::close) has returned.
    ///
    /// ```
    /// use agentflow::task::TaskEvent;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let tasks = agentflow::BackgroundTaskManager::new();
    /// let mut events = tasks.events();
    /// tasks
    ///     .create_task_with_context(|task| async move { task.progress(0.5, "half-way") })
    ///     .name("upload")
    ///     .spawn()?;
    /// tasks.close(None).await;
    ///
    /// let mut seen = Vec::new();
    /// while let Some(event) = events.next().await {
    ///     seen.push(match event {
    ///         TaskEvent::Spawned(task) => format!("{} spawned", task.name()),
    ///         TaskEvent::Started(task) => format!("{} started", task.name()),
    ///         TaskEvent::Progress(task) => format!("{}", task.progress().unwrap()),
    ///         TaskEvent::Ended(end) => format!("{} {}", end.name(), end.outcome()),
    ///         other => format!("{other:?}"),
    ///     });
    /// }
    /// assert_eq!(seen, ["upload spawned", "upload started", "50 % half-way", "upload completed"]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn events(&self) -> TaskEventStream {
        let receiver = self.registry.watch();
        let events = stream::unfold(receiver, |receiver| async {
            let mut receiver = receiver?;
            let event = match receiver.recv().await {
                Ok(event) => event,
                Err(RecvError::Lagged(missed)) => TaskEvent::Missed(missed),
                Err(RecvError::Closed) => return None,
            };
            Some((event, Some(receiver)))
        });
        TaskEventStream(Box::pin(events.fuse()))
    }
}

impl TaskEventStream {
    /// The next event; `None` when the manager is closed and its last task has ended.
    ///
    /// # Cancel safety
    ///
    /// Safe to drop: no event is lost.
    pub async fn next(&mut self) -> Option<TaskEvent> {
        self.0.next().await
    }
}

impl Stream for TaskEventStream {
    type Item = TaskEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<TaskEvent>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for TaskEventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskEventStream").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TaskContext;

    #[tokio::test(start_paused = true)]
    async fn when_the_last_watcher_is_gone_events_cost_nothing_again() {
        let tasks = BackgroundTaskManager::new();
        let is_watched = || tasks.registry.is_watched();
        assert!(!is_watched());
        let (first, second) = (tasks.events(), tasks.events());
        drop(first);
        assert!(tasks.create_task(async {}).spawn().is_ok() && is_watched());
        drop(second);
        // Whoever comes first to have something to tell finds out.
        assert!(tasks.create_task(async {}).spawn().is_ok() && !is_watched());
        let _third = tasks.events();
        assert!(is_watched());
        assert!(tasks.wait_for_all(None).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn progress_that_nobody_hears_is_found_out_too() {
        let tasks = BackgroundTaskManager::new();
        let events = tasks.events();
        let work = |task: TaskContext| async move {
            drop(events);
            task.progress(0.5, "alone");
        };
        assert!(tasks.create_task_with_context(work).spawn().is_ok());
        assert!(tasks.wait_for_all(None).await.is_ok());
        assert!(!tasks.registry.is_watched());
    }
}

//! [`TaskEvent`] and [`TaskEventStream`]: the events of a manager's tasks, and the stream of them.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_core::Stream;
use serde::{Serialize, Serializer};
use tokio::task::coop;

use super::{
    info::{FinishedTask, TaskInfo},
    registry::watchers::EventReader,
};
use crate::seconds;

/// Something that happened to a task.
///
/// The events of a manager arrive in the order in which they happened. Those of one task are: spawned, started, its
/// attempts and its progress, ended. So counting by events never finds more running tasks than
/// [`max_running`](crate::task::TaskManagerOptions::max_running) allows, and when a task's end arrives, its handle is
/// ready and the counters contain it. Cheap to clone.
///
/// In JSON the kind is the field `type`, and the task is the field `task`:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let tasks = agentflow::BackgroundTaskManager::new();
/// let mut events = tasks.events();
/// tasks.create_task(async {}).name("upload").spawn()?;
/// let event = serde_json::to_value(events.next().await)?;
/// assert_eq!((&event["type"], &event["task"]["name"]), (&"spawned".into(), &"upload".into()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TaskEvent {
    /// The task was accepted. It may be delayed or queued.
    Spawned(TaskInfo),
    /// The task began to run.
    Started(TaskInfo),
    /// An attempt failed, and there will be another one.
    #[non_exhaustive]
    AttemptFailed {
        /// The task.
        task: TaskInfo,
        /// The number of the attempt, from 1.
        attempt: u32,
        /// The message of the attempt's error, with its sources.
        error: Arc<str>,
        /// The pause before the next attempt.
        retry_in: Duration,
    },
    /// The task reported its [progress](TaskInfo::progress).
    Progress(TaskInfo),
    /// The task ended.
    Ended(FinishedTask),
    /// The stream's reader was too slow, and missed this many events.
    Missed(u64),
}

impl Serialize for TaskEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(tag = "type", rename_all = "snake_case", rename = "TaskEvent")]
        enum Tagged<'a> {
            Spawned {
                task: &'a TaskInfo,
            },
            Started {
                task: &'a TaskInfo,
            },
            AttemptFailed {
                task: &'a TaskInfo,
                attempt: u32,
                error: &'a str,
                #[serde(with = "seconds")]
                retry_in: Duration,
            },
            Progress {
                task: &'a TaskInfo,
            },
            Ended {
                task: &'a FinishedTask,
            },
            Missed {
                count: u64,
            },
        }
        let tagged = match self {
            Self::Spawned(task) => Tagged::Spawned { task },
            Self::Started(task) => Tagged::Started { task },
            Self::AttemptFailed { task, attempt, error, retry_in } => {
                Tagged::AttemptFailed { task, attempt: *attempt, error, retry_in: *retry_in }
            }
            Self::Progress(task) => Tagged::Progress { task },
            Self::Ended(task) => Tagged::Ended { task },
            Self::Missed(count) => Tagged::Missed { count: *count },
        };
        tagged.serialize(serializer)
    }
}

/// A [`Stream`] of the [`TaskEvent`]s of a manager, from the call of
/// [`events`](crate::BackgroundTaskManager::events) on.
///
/// It ends when the manager is closed and its last task has ended. A task of the manager may read its own manager's
/// events: the stream ends as soon as a [`close`](crate::BackgroundTaskManager::close) finds that all tasks that are left
/// wait for the next event, and a [`wait_for_all`](crate::BackgroundTaskManager::wait_for_all) leaves such tasks out.
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
/// // The buffer holds two events; `Spawned` was the third last.
/// assert!(matches!(events.next().await, Some(TaskEvent::Missed(1))));
/// assert!(matches!(events.next().await, Some(TaskEvent::Started(_))));
/// assert!(matches!(events.next().await, Some(TaskEvent::Ended(_))));
/// assert!(events.next().await.is_none());
/// # Ok(())
/// # }
/// ```
#[must_use = "events are buffered for this stream until it is read or dropped"]
pub struct TaskEventStream {
    /// `None` when there are no more events.
    reader: Option<EventReader>,
    sequence: u64,
}

impl TaskEventStream {
    /// Creates the stream of the reader's events, or an empty stream without a reader.
    pub(super) fn new(reader: Option<EventReader>) -> Self {
        Self { reader, sequence: 0 }
    }

    /// Waits for the next event; returns `None` when the manager is closed and its last task has ended.
    ///
    /// # Cancel safety
    ///
    /// Safe to drop: no event is lost.
    pub async fn next(&mut self) -> Option<TaskEvent> {
        let next = NextEvent { stream: self, waits: false };
        next.await
    }

    /// Returns the sequence number of the event that was returned last; 0 before the first one.
    ///
    /// The numbers count the manager's events in the order in which they happened, and are the same for all
    /// streams. After [`Missed`](TaskEvent::Missed) it is the number of the last event that was missed.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let tasks = agentflow::BackgroundTaskManager::new();
    /// let (mut first, mut second) = (tasks.events(), tasks.events());
    /// tasks.create_task(async {}).spawn()?;
    /// first.next().await;
    /// second.next().await;
    /// assert_eq!((first.sequence(), second.sequence()), (1, 1));
    /// # tasks.wait_for_all(None).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

impl Stream for TaskEventStream {
    type Item = TaskEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<TaskEvent>> {
        let Some(reader) = &self.reader else {
            return Poll::Ready(None);
        };
        // A reader that always finds an event must let the other tasks of its thread run as well.
        let budget = ready!(coop::poll_proceed(cx));
        let next = ready!(reader.poll_next(cx));
        budget.made_progress();
        let Some((sequence, event)) = next else {
            self.reader = None;
            return Poll::Ready(None);
        };
        self.sequence = sequence;
        Poll::Ready(Some(event))
    }
}

/// The next event of a stream. A task that has dropped it waits for other things, and a caller may wait for the task.
struct NextEvent<'a> {
    stream: &'a mut TaskEventStream,
    /// Set if the stream was found waiting.
    waits: bool,
}

impl Future for NextEvent<'_> {
    type Output = Option<TaskEvent>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let next = Pin::new(&mut *self.stream).poll_next(cx);
        self.waits = next.is_pending();
        next
    }
}

impl Drop for NextEvent<'_> {
    fn drop(&mut self) {
        if let Some(reader) = self.stream.reader.as_ref().filter(|_| self.waits) {
            reader.stop_waiting();
        }
    }
}

impl fmt::Debug for TaskEventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskEventStream").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use crate::{BackgroundTaskManager, TaskContext};

    #[tokio::test(start_paused = true)]
    async fn when_the_last_watcher_is_gone_events_cost_nothing_again() {
        let tasks = BackgroundTaskManager::new();
        let is_watched = || tasks.registry.is_watched();
        assert!(!is_watched());
        let (first, second) = (tasks.events(), tasks.events());
        drop(first);
        assert!(tasks.create_task(async {}).spawn().is_ok() && is_watched());
        drop(second);
        // The next event finds that the stream has no reader left.
        assert!(tasks.create_task(async {}).spawn().is_ok() && !is_watched());
        let _third = tasks.events();
        assert!(is_watched());
        assert!(tasks.wait_for_all(None).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn progress_without_a_reader_ends_the_watching_too() {
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

//! [`TaskEventStream`]: a stream of the events of a manager's tasks.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use tokio::task::coop;

use super::{event::TaskEvent, registry::event_reader::EventReader};

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

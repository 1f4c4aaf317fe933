//! [`EventReader`]: the position of one watcher in the events of a manager.

use std::{
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use super::{
    super::{engine::current::CurrentTask, event::TaskEvent},
    Registry,
    event_buffer::EventBuffer,
};

/// The position of one watcher in the buffer.
#[derive(Debug)]
pub(crate) struct EventReader {
    buffer: Arc<EventBuffer>,
    id: usize,
}

impl EventReader {
    fn new(buffer: &Arc<EventBuffer>) -> Self {
        Self { id: buffer.add_reader(), buffer: Arc::clone(buffer) }
    }

    /// Returns the next event with its sequence number; `None` when there will be none.
    pub(crate) fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<(u64, TaskEvent)>> {
        let next = self.buffer.read(self.id);
        if next.is_ready() {
            return next;
        }
        // The waker is user code: it is cloned outside the lock, and only if the reader has to wait.
        let waker = cx.waker().clone();
        let watcher = CurrentTask::get().filter(|current| current.registry.is_source_of(&self.buffer));
        let next = self.buffer.read_or_wait(self.id, waker, watcher.as_ref().map(|current| current.task.id));
        if let Some(current) = watcher.filter(|_| next.is_pending()) {
            // A caller may wait until no other task than this one is left.
            current.registry.notify();
        }
        next
    }

    /// Records that the reader waits no more, though there was no event.
    pub(crate) fn stop_waiting(&self) {
        self.buffer.stop_waiting(self.id);
    }
}

impl Drop for EventReader {
    fn drop(&mut self) {
        self.buffer.remove_reader(self.id);
    }
}

impl Registry {
    /// Returns a reader of all later events; `None` if there can be none.
    pub(crate) fn subscribe(&self) -> Option<EventReader> {
        let mut state = self.lock();
        if state.is_over() {
            return None;
        }
        // Release: pairs with the load in `emit`. The buffer itself is read under the lock, so the flag guards nothing:
        // an event that is emitted after this call sees it, whatever the ordering, if a lock or a channel orders the
        // two.
        self.is_watched.store(true, Ordering::Release);
        let (capacity, first) = (self.options.event_buffer, state.event_sequence);
        Some(EventReader::new(state.events.get_or_insert_with(|| Arc::new(EventBuffer::new(capacity, first)))))
    }

    /// Returns whether the events in this buffer are this manager's.
    fn is_source_of(&self, buffer: &Arc<EventBuffer>) -> bool {
        self.lock().events.as_ref().is_some_and(|events| Arc::ptr_eq(events, buffer))
    }
}

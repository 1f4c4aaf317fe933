//! Sending events to watchers.

use std::sync::atomic::Ordering;

use tokio::sync::broadcast;

use super::{super::events::TaskEvent, Registry};

impl Registry {
    /// Returns a receiver of the events from now on; `None` if there will be none.
    pub(crate) fn subscribe(&self) -> Option<broadcast::Receiver<TaskEvent>> {
        let mut state = self.lock();
        if state.is_over() {
            return None;
        }
        // Release: pairs with the load in `emit`. The sender itself is read under the lock, so the flag guards nothing:
        // an event that is emitted after this call sees it, whatever the ordering, if a lock or a channel orders the
        // two.
        self.is_watched.store(true, Ordering::Release);
        let buffer = self.options.event_buffer;
        Some(state.events.get_or_insert_with(|| broadcast::Sender::new(buffer)).subscribe())
    }

    /// Returns whether events are buffered for a watcher.
    #[cfg(test)]
    pub(crate) fn is_watched(&self) -> bool {
        // Acquire: as in `emit`.
        self.is_watched.load(Ordering::Acquire) && self.lock().events.is_some()
    }

    /// Sends the event to the watchers, if there are any, and waits for none of them.
    pub(super) fn emit(&self, event: impl FnOnce() -> TaskEvent) {
        // Acquire: pairs with the stores below and in `subscribe`. A stale `true` is corrected under the lock; a stale
        // `false` is possible only for an event that is concurrent with the subscription, and may be missed.
        if !self.is_watched.load(Ordering::Acquire) {
            return;
        }
        let (events, unwatched) = {
            let mut state = self.lock();
            let is_watched = state.events.as_ref().is_some_and(|events| events.receiver_count() > 0);
            // Release: the lock orders this store with that in `subscribe`.
            self.is_watched.store(is_watched, Ordering::Release);
            if is_watched { (state.events.clone(), None) } else { (None, state.events.take()) }
        };
        // Dropped outside the lock: the buffer holds records, which may hold user data.
        drop(unwatched);
        if let Some(events) = events {
            // Sending fails if the last watcher has gone meanwhile: then the event is for no one.
            let _ = events.send(event());
        }
    }
}

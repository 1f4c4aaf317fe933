//! Telling those who watch.

use std::sync::atomic::Ordering;

use tokio::sync::broadcast;

use super::Registry;
use crate::task::events::TaskEvent;

impl Registry {
    /// The events from now on; `None` if there will be none.
    pub(in crate::task) fn watch(&self) -> Option<broadcast::Receiver<TaskEvent>> {
        let mut state = self.lock();
        if state.is_over() {
            return None;
        }
        self.is_watched.store(true, Ordering::Release);
        let buffer = self.options.event_buffer;
        Some(state.events.get_or_insert_with(|| broadcast::Sender::new(buffer)).subscribe())
    }

    /// Whether events are kept for anybody.
    #[cfg(test)]
    pub(in crate::task) fn is_watched(&self) -> bool {
        self.is_watched.load(Ordering::Acquire) && self.lock().events.is_some()
    }

    /// Tells whoever watches. Nobody is waited for.
    pub(super) fn emit(&self, event: impl FnOnce() -> TaskEvent) {
        if !self.is_watched.load(Ordering::Acquire) {
            return;
        }
        let (events, unwatched) = {
            let mut state = self.lock();
            let is_watched = state.events.as_ref().is_some_and(|events| events.receiver_count() > 0);
            self.is_watched.store(is_watched, Ordering::Release);
            if is_watched { (state.events.clone(), None) } else { (None, state.events.take()) }
        };
        drop(unwatched);
        if let Some(events) = events {
            // The last watcher may have gone since.
            let _ = events.send(event());
        }
    }
}

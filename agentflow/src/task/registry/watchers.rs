//! [`EventBuffer`]: the events that the watchers of a manager have not read yet.
//!
//! An event is added while the registry's lock is held for the change that the event reports, so all watchers see the
//! events in the order of the changes. The watchers are woken after the lock is released.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
};

use slab::Slab;

use super::{
    super::{
        engine::{
            current::CurrentTask,
            sync::Mutex,
            task::{TaskRecord, TaskRef},
        },
        events::TaskEvent,
        info::TaskInfo,
    },
    Registry,
    state::State,
};
use crate::error::catch_panic;

/// The events that at least one watcher has not read yet, up to a capacity.
#[derive(Debug)]
pub(super) struct EventBuffer(Mutex<Buffer>);

#[derive(Debug)]
struct Buffer {
    capacity: usize,
    events: VecDeque<TaskEvent>,
    /// The sequence number of the first event in the buffer.
    first: u64,
    readers: Slab<Reader>,
    is_closed: bool,
}

#[derive(Debug)]
struct Reader {
    /// The sequence number of the event that the reader reads next.
    next: u64,
    /// The reader's waker while it waits.
    waker: Option<Waker>,
    /// The task of this manager in which it waits, if it waits in one.
    task: Option<TaskRef>,
}

/// The work that a new event leaves to do outside of the registry's lock.
#[derive(Debug, Default)]
#[must_use = "the watchers are woken by `deliver`"]
pub(super) struct Delivery {
    wakers: Vec<Waker>,
    /// The oldest event, if the buffer was full. It is dropped outside the lock, because its record may hold user data.
    missed: Option<TaskEvent>,
}

impl Delivery {
    /// Wakes the watchers.
    pub(super) fn deliver(self) {
        for waker in self.wakers {
            catch_panic(|| waker.wake());
        }
        drop(self.missed);
    }
}

impl EventBuffer {
    fn new(capacity: usize, first: u64) -> Self {
        let (events, readers) = (VecDeque::new(), Slab::new());
        Self(Mutex::new(Buffer { capacity, events, first, readers, is_closed: false }))
    }

    fn push(&self, event: TaskEvent) -> Delivery {
        let mut buffer = self.0.lock();
        buffer.events.push_back(event);
        let missed = if buffer.events.len() > buffer.capacity { buffer.pop() } else { None };
        Delivery { wakers: buffer.wakers(), missed }
    }

    /// Ends the streams of the watchers once they have read the buffered events.
    fn close(&self) -> Delivery {
        let mut buffer = self.0.lock();
        buffer.is_closed = true;
        Delivery { wakers: buffer.wakers(), missed: None }
    }

    fn has_readers(&self) -> bool {
        !self.0.lock().readers.is_empty()
    }

    fn next_sequence(&self) -> u64 {
        self.0.lock().end()
    }

    /// Returns the tasks whose readers wait, each once.
    fn waiting_tasks(&self) -> BTreeSet<TaskRef> {
        let buffer = self.0.lock();
        let waiting = buffer.readers.iter().filter(|(_, reader)| reader.waker.is_some());
        waiting.filter_map(|(_, reader)| reader.task).collect()
    }
}

impl Buffer {
    /// Returns the sequence number of the next new event.
    fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    fn pop(&mut self) -> Option<TaskEvent> {
        let event = self.events.pop_front()?;
        self.first += 1;
        Some(event)
    }

    fn wakers(&mut self) -> Vec<Waker> {
        self.readers.iter_mut().filter_map(|(_, reader)| reader.waker.take()).collect()
    }

    /// Removes the events that no reader needs any more, for the caller to drop outside the lock.
    fn take_read(&mut self) -> Vec<TaskEvent> {
        let needed = self.readers.iter().map(|(_, reader)| reader.next).min().unwrap_or_else(|| self.end());
        let read = needed.saturating_sub(self.first);
        (0..read).map_while(|_| self.pop()).collect()
    }

    /// Returns the next event of a reader, with its sequence number.
    fn read(&mut self, reader: usize) -> Option<(u64, TaskEvent)> {
        let reader = self.readers.get_mut(reader)?;
        let missed = self.first.saturating_sub(reader.next);
        if missed > 0 {
            reader.next = self.first;
            return Some((self.first - 1, TaskEvent::Missed(missed)));
        }
        let sequence = reader.next;
        let event = self.events.get(usize::try_from(sequence - self.first).ok()?)?.clone();
        reader.next += 1;
        Some((sequence, event))
    }
}

/// The position of one watcher in the buffer.
#[derive(Debug)]
pub(crate) struct EventReader {
    buffer: Arc<EventBuffer>,
    id: usize,
}

impl EventReader {
    fn new(buffer: &Arc<EventBuffer>) -> Self {
        let id = {
            let mut state = buffer.0.lock();
            let next = state.end();
            state.readers.insert(Reader { next, waker: None, task: None })
        };
        Self { buffer: Arc::clone(buffer), id }
    }

    /// Returns the next event with its sequence number; `None` when there will be none.
    pub(crate) fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<(u64, TaskEvent)>> {
        // The waker is user code: it is cloned outside the lock, and only if the reader has to wait.
        let mut waiting: Option<(Waker, Option<CurrentTask>)> = None;
        loop {
            let mut buffer = self.buffer.0.lock();
            if let Some(next) = buffer.read(self.id) {
                let read = buffer.take_read();
                drop(buffer);
                drop(read);
                return Poll::Ready(Some(next));
            }
            if buffer.is_closed {
                return Poll::Ready(None);
            }
            if let Some((waker, watcher)) = waiting.take() {
                let replaced = buffer.readers.get_mut(self.id).and_then(|reader| {
                    reader.task = watcher.as_ref().map(|current| current.task.at);
                    reader.waker.replace(waker)
                });
                drop(buffer);
                catch_panic(|| drop(replaced));
                if let Some(current) = watcher {
                    // A caller may wait until no other task than this one is left.
                    current.registry.notify();
                }
                return Poll::Pending;
            }
            drop(buffer);
            let watcher = CurrentTask::get().filter(|current| current.registry.is_source_of(&self.buffer));
            waiting = Some((cx.waker().clone(), watcher));
        }
    }

    /// Records that the reader waits no more, though there was no event.
    pub(crate) fn stop_waiting(&self) {
        let waker = self.buffer.0.lock().readers.get_mut(self.id).and_then(|reader| reader.waker.take());
        catch_panic(|| drop(waker));
    }
}

impl Drop for EventReader {
    fn drop(&mut self) {
        let (reader, read) = {
            let mut buffer = self.buffer.0.lock();
            (buffer.readers.try_remove(self.id), buffer.take_read())
        };
        catch_panic(|| drop((reader, read)));
    }
}

impl State {
    /// Adds an event for the watchers, if there are any.
    pub(super) fn publish(&mut self, event: impl FnOnce() -> Option<TaskEvent>) -> Delivery {
        match &self.events {
            Some(events) if events.has_readers() => event().map(|event| events.push(event)).unwrap_or_default(),
            _ => Delivery::default(),
        }
    }

    /// Ends the watchers' streams if no task lives and none can be spawned any more.
    pub(super) fn end_events_if_over(&mut self) -> Delivery {
        if self.is_over() { self.end_events() } else { Delivery::default() }
    }

    /// Ends the watchers' streams, after the events that there are.
    pub(super) fn end_events(&mut self) -> Delivery {
        let Some(events) = self.events.take() else {
            return Delivery::default();
        };
        self.event_sequence = events.next_sequence();
        events.close()
    }

    /// Returns the live tasks that wait for the next event of their own manager, and so for other tasks.
    pub(super) fn watching(&self) -> BTreeSet<TaskRef> {
        let mut watching = self.events.as_ref().map(|events| events.waiting_tasks()).unwrap_or_default();
        watching.retain(|task| self.get(*task).is_some());
        watching
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

    /// Returns whether events are buffered for a watcher.
    #[cfg(test)]
    pub(crate) fn is_watched(&self) -> bool {
        // Acquire: as in `emit`.
        self.is_watched.load(Ordering::Acquire) && self.lock().events.is_some()
    }

    /// Adds an event of a live task for the watchers, if there are any, without waiting for them.
    pub(super) fn emit(&self, task: &Arc<TaskRecord>, event: impl FnOnce(TaskInfo) -> TaskEvent) {
        // Acquire: pairs with the stores below and in `subscribe`. A stale `true` is corrected under the lock; a stale
        // `false` is possible only for an event that is concurrent with the subscription, and may be missed.
        if !self.is_watched.load(Ordering::Acquire) {
            return;
        }
        let now = self.now();
        let (delivery, unwatched) = {
            let mut state = self.lock();
            if state.events.as_ref().is_some_and(|events| events.has_readers()) {
                // `Ended` is the last event of a task, even if another thread still reports progress for it.
                let event = || (!task.has_ended()).then(|| event(TaskInfo::new(task, now)));
                (state.publish(event), None)
            } else {
                // Release: the lock orders this store with that in `subscribe`.
                self.is_watched.store(false, Ordering::Release);
                let unwatched = state.events.take();
                state.event_sequence = unwatched.as_ref().map_or(state.event_sequence, |events| events.next_sequence());
                (Delivery::default(), unwatched)
            }
        };
        // The buffer is dropped outside the lock, because its records may hold user data.
        drop(unwatched);
        delivery.deliver();
    }
}

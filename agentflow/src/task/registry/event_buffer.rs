//! [`EventBuffer`]: the events that the watchers of a manager have not read yet.
//!
//! An event is added while the registry's lock is held for the change that the event reports, so all watchers see the
//! events in the order of the changes. The watchers are woken after the lock is released.

use std::{
    collections::{BTreeSet, VecDeque},
    task::{Poll, Waker},
};

use slab::Slab;

use super::super::{engine::sync::Mutex, event::TaskEvent, id::TaskId};
use crate::panics::catch_panic;

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
    task: Option<TaskId>,
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
    pub(super) fn new(capacity: usize, first: u64) -> Self {
        let (events, readers) = (VecDeque::new(), Slab::new());
        Self(Mutex::new(Buffer { capacity, events, first, readers, is_closed: false }))
    }

    pub(super) fn push(&self, event: TaskEvent) -> Delivery {
        let mut buffer = self.0.lock();
        buffer.events.push_back(event);
        let missed = if buffer.events.len() > buffer.capacity { buffer.pop() } else { None };
        Delivery { wakers: buffer.wakers(), missed }
    }

    /// Ends the streams of the watchers once they have read the buffered events.
    pub(super) fn close(&self) -> Delivery {
        let mut buffer = self.0.lock();
        buffer.is_closed = true;
        Delivery { wakers: buffer.wakers(), missed: None }
    }

    pub(super) fn has_readers(&self) -> bool {
        !self.0.lock().readers.is_empty()
    }

    pub(super) fn next_sequence(&self) -> u64 {
        self.0.lock().end()
    }

    /// Returns the tasks whose readers wait, each once.
    pub(super) fn waiting_tasks(&self) -> BTreeSet<TaskId> {
        let buffer = self.0.lock();
        let waiting = buffer.readers.iter().filter(|(_, reader)| reader.waker.is_some());
        waiting.filter_map(|(_, reader)| reader.task).collect()
    }

    /// Adds a reader of all later events, and returns its id.
    pub(super) fn add_reader(&self) -> usize {
        let mut buffer = self.0.lock();
        let next = buffer.end();
        buffer.readers.insert(Reader { next, waker: None, task: None })
    }

    /// Returns the next event of a reader with its sequence number; `None` when there will be none.
    pub(super) fn read(&self, reader: usize) -> Poll<Option<(u64, TaskEvent)>> {
        let (next, read) = self.0.lock().poll_read(reader);
        drop(read);
        next
    }

    /// Returns the next event of a reader as [`read`](Self::read) does. If there is none yet, the reader waits in `task`,
    /// with this waker.
    pub(super) fn read_or_wait(
        &self,
        reader: usize,
        waker: Waker,
        task: Option<TaskId>,
    ) -> Poll<Option<(u64, TaskEvent)>> {
        let mut replaced = None;
        let (next, read) = {
            let mut buffer = self.0.lock();
            let (next, read) = buffer.poll_read(reader);
            if let (Poll::Pending, Some(reader)) = (&next, buffer.readers.get_mut(reader)) {
                reader.task = task;
                replaced = reader.waker.replace(waker);
            }
            (next, read)
        };
        drop(read);
        catch_panic(|| drop(replaced));
        next
    }

    /// Records that a reader waits no more.
    pub(super) fn stop_waiting(&self, reader: usize) {
        let waker = self.0.lock().readers.get_mut(reader).and_then(|reader| reader.waker.take());
        catch_panic(|| drop(waker));
    }

    /// Removes a reader, and the events that only it had not read.
    pub(super) fn remove_reader(&self, reader: usize) {
        let (reader, read) = {
            let mut buffer = self.0.lock();
            (buffer.readers.try_remove(reader), buffer.take_read())
        };
        catch_panic(|| drop((reader, read)));
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

    /// Returns the next event of a reader, and the events that no reader needs any more.
    fn poll_read(&mut self, reader: usize) -> (Poll<Option<(u64, TaskEvent)>>, Vec<TaskEvent>) {
        match self.read(reader) {
            Some(next) => (Poll::Ready(Some(next)), self.take_read()),
            None if self.is_closed => (Poll::Ready(None), Vec::new()),
            None => (Poll::Pending, Vec::new()),
        }
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

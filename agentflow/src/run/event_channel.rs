//! The channel of a run's events: [`Sink`] and [`EventWriter`] write, [`RunStream`](super::RunStream) reads.

use std::{
    collections::VecDeque,
    fmt,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::SystemTime,
};

use serde::Serialize;
use tokio::sync::Notify;

use super::event::{Event, EventKind};
use crate::{
    run_id::RunId,
    state::FieldChange,
    sync::Mutex,
    task::{TaskId, TaskOutcome, Watch},
};

/// The number of unread events from which on the run waits for its reader.
const EVENT_CAPACITY: usize = 64;

/// The number of unread events from which on the events of tasks, which never wait, are counted and left out.
const TASK_EVENT_CAPACITY: usize = 1024;

/// The destination of a run's events. `invoke` has none and pays for one check of an `Option` per event.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sink(Option<Arc<Buffer>>);

/// The channel between a run and the reader of its events.
pub(super) struct Buffer {
    run: RunId,
    state: Mutex<BufferState>,
    /// Notified when the number of unread events falls below [`EVENT_CAPACITY`].
    has_capacity: Notify,
}

#[derive(Default)]
struct BufferState {
    events: VecDeque<Event>,
    next_sequence: u64,
    /// The number of task events that were left out since the last event.
    missed: u64,
    reader: Option<Waker>,
    /// Set by the last event and by the end of the reader: later events are discarded.
    is_closed: bool,
}

impl Sink {
    /// Creates a sink with a reader.
    pub(super) fn buffered(run: RunId) -> (Self, Arc<Buffer>) {
        let buffer = Arc::new(Buffer { run, state: Mutex::default(), has_capacity: Notify::new() });
        (Self(Some(Arc::clone(&buffer))), buffer)
    }

    /// Writes an event and returns a future that waits until the reader has caught up.
    ///
    /// This is not an `async fn`, because that would copy the captures of `kind` into a future even without a reader.
    #[inline]
    pub(super) fn emit<K: FnOnce() -> EventKind>(&self, kind: K) -> impl Future<Output = ()> + use<'_, K> {
        let buffer = self.0.as_deref();
        if let Some(buffer) = buffer {
            buffer.push(kind());
        }
        async move {
            if let Some(buffer) = buffer {
                buffer.wait_for_capacity().await;
            }
        }
    }

    /// Writes an event without waiting for the reader.
    #[inline]
    pub(super) fn push(&self, kind: impl FnOnce() -> EventKind) {
        if let Some(buffer) = self.0.as_deref() {
            buffer.push(kind());
        }
    }

    /// Adds the fields of `changes` to `fields`, if there is a reader.
    pub(super) fn record_changes(&self, fields: &mut Vec<String>, changes: impl FnOnce() -> Vec<FieldChange>) {
        if self.0.is_some() {
            for change in changes() {
                if !fields.iter().any(|field| field == change.field) {
                    fields.push(change.field.to_owned());
                }
            }
        }
    }

    /// Returns the observer of the run's background tasks, if there is a reader.
    pub(super) fn watch(&self) -> Option<Arc<dyn Watch>> {
        self.0.clone().map(|buffer| buffer as _)
    }

    pub(super) fn writer(&self, node: &Arc<str>) -> EventWriter {
        EventWriter(self.0.as_ref().map(|buffer| {
            Box::new(Writer { sink: Self(Some(Arc::clone(buffer))), node: Arc::clone(node), fields: Mutex::default() })
        }))
    }
}

/// Task events are written without waiting for the reader, so that a slow reader never slows a task.
impl Watch for Buffer {
    fn started(&self, node: &str, task: &str, id: TaskId) {
        self.push_task_event(|| EventKind::TaskStarted { node: node.to_owned(), task: task.to_owned(), id: id.get() });
    }

    fn ended(&self, node: &str, task: &str, id: TaskId, outcome: TaskOutcome) {
        let outcome = outcome.as_str().to_owned();
        self.push_task_event(|| EventKind::TaskEnded {
            node: node.to_owned(),
            task: task.to_owned(),
            id: id.get(),
            outcome,
        });
    }
}

impl Buffer {
    /// Writes an event without waiting. Events after the last one are discarded.
    pub(super) fn push(&self, kind: EventKind) {
        let mut state = self.state.lock();
        if state.is_closed {
            return;
        }
        state.is_closed = matches!(kind, EventKind::RunEnded { .. });
        let missed = std::mem::take(&mut state.missed);
        let missed = (missed > 0).then_some(EventKind::TasksMissed { count: missed });
        for kind in missed.into_iter().chain([kind]) {
            let sequence = state.next_sequence;
            state.next_sequence += 1;
            state.events.push_back(Event { sequence, time: SystemTime::now(), run: self.run, kind });
        }
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Writes the event of a task, or counts it as missed if the reader is too far behind.
    fn push_task_event(&self, kind: impl FnOnce() -> EventKind) {
        {
            let mut state = self.state.lock();
            if state.events.len() >= TASK_EVENT_CAPACITY {
                state.missed += 1;
                return;
            }
        }
        self.push(kind());
    }

    /// Discards the unread events and all later ones, because the reader is gone.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        drop(std::mem::take(&mut state.events));
    }

    async fn wait_for_capacity(&self) {
        loop {
            // Created before the check: `notify_waiters` wakes every `Notified` that exists when it is called.
            let has_capacity = self.has_capacity.notified();
            if self.state.lock().events.len() < EVENT_CAPACITY {
                return;
            }
            has_capacity.await;
        }
    }

    /// Returns the next event, or registers the reader's waker for it.
    pub(super) fn poll_pop(&self, cx: &mut Context<'_>) -> Poll<Event> {
        let mut state = self.state.lock();
        if let Some(event) = state.events.pop_front() {
            let has_capacity = state.events.len() + 1 == EVENT_CAPACITY;
            drop(state);
            if has_capacity {
                self.has_capacity.notify_waiters();
            }
            return Poll::Ready(event);
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("run", &self.run).finish_non_exhaustive()
    }
}

/// Writes custom events, such as progress or tokens, for the reader of a [`stream`](crate::CompiledGraph::stream). Runs by
/// [`invoke`](crate::CompiledGraph::invoke) have no reader, and the events cost nothing there.
///
/// `EventWriter::default()` has no reader; use it in unit tests of a node's function.
#[derive(Debug, Default)]
pub struct EventWriter(Option<Box<Writer>>);

#[derive(Debug)]
struct Writer {
    sink: Sink,
    node: Arc<str>,
    fields: Mutex<Vec<String>>,
}

impl EventWriter {
    /// Writes one event, and waits while the reader is too far behind. `data` is serialized only if there is a reader; if
    /// that fails, the event carries the text of the error instead.
    ///
    /// # Cancel safety
    ///
    /// The event is written before the first await; dropping the future only ends the wait.
    pub async fn emit(&self, name: &str, data: impl Serialize) {
        let Some(Writer { sink, node, .. }) = self.0.as_deref() else {
            return;
        };
        let data = serde_json::to_value(data).unwrap_or_else(|error| error.to_string().into());
        sink.emit(|| EventKind::Custom { node: node.to_string(), name: name.to_owned(), data }).await;
    }

    /// Returns whether the run has a reader. Check it before computing data that only an event needs.
    #[must_use]
    pub fn has_reader(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn record_changes(&self, changes: impl FnOnce() -> Vec<FieldChange>) {
        if let Some(Writer { sink, fields, .. }) = self.0.as_deref() {
            sink.record_changes(&mut fields.lock(), changes);
        }
    }

    /// Returns the fields that the node's updates changed, if there are any and a reader.
    pub(super) fn take_changes(&self) -> Option<Vec<String>> {
        let Writer { fields, .. } = self.0.as_deref()?;
        let fields = std::mem::take(&mut *fields.lock());
        (!fields.is_empty()).then_some(fields)
    }
}

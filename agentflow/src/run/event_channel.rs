//! The channel of a run's events: [`Sink`] and [`EventWriter`] write, [`RunStream`](super::RunStream) reads.

use std::{
    collections::VecDeque,
    fmt, iter,
    sync::{Arc, MutexGuard},
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use serde::Serialize;
use tokio::{sync::Notify, task::consume_budget, time::Instant};

use super::event::{Event, EventKind};
use crate::{
    panics::catch_panic,
    run_id::RunId,
    state::FieldChange,
    sync::{Mutex, guard_waker},
    task::{TaskId, TaskObserver, TaskOutcome, TaskProgress},
};

/// The number of unread events from which on the run waits for its reader.
const EVENT_CAPACITY: usize = 64;

/// The number of events that the reader takes at once. Run and reader meet by the batch and not by the event, and while
/// the reader reads one half of the capacity, the run may fill the other.
const BATCH: usize = EVENT_CAPACITY / 2;

/// The number of unread events from which on the starts and ends of tasks, which never wait, are counted and left out.
/// Their progress is left out as soon as the reader is behind.
const TASK_EVENT_CAPACITY: usize = 1024;

/// The destination of a run's events. `invoke` has none and pays for one check of an `Option` per event.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sink(Option<Arc<Buffer>>);

/// The channel between a run and the reader of its events.
pub(crate) struct Buffer {
    pub(super) run: RunId,
    state: Mutex<BufferState>,
    /// Notified when the reader has taken events, and when later events are discarded.
    has_capacity: Notify,
}

#[derive(Default)]
struct BufferState {
    events: VecDeque<Event>,
    /// The number of events in the batch that the reader has taken, which count as unread until it takes the next one.
    taken: usize,
    next_sequence: u64,
    /// The number of task events that were left out since the last event.
    missed: u64,
    reader: Option<Waker>,
    /// Set by the last event and by the end of the reader: later events are discarded.
    is_closed: bool,
    /// Set if the reader ended before the last event was written.
    is_abandoned: bool,
}

impl Sink {
    /// Creates a sink with a reader.
    pub(crate) fn buffered(run: RunId) -> (Self, Arc<Buffer>) {
        let buffer = Arc::new(Buffer { run, state: Mutex::default(), has_capacity: Notify::new() });
        (Self(Some(Arc::clone(&buffer))), buffer)
    }

    /// Writes an event and returns a future that waits until the reader has caught up. The wait is no time of the nodes
    /// that `writer` belongs to.
    ///
    /// This is not an `async fn`, because that would copy the captures of `kind` into a future even without a reader.
    #[inline]
    pub(super) fn emit<'a, K: FnOnce() -> EventKind>(
        &'a self,
        writer: &'a EventWriter,
        kind: K,
    ) -> impl Future<Output = ()> + use<'a, K> {
        let buffer = self.0.as_deref();
        if let Some(buffer) = buffer {
            buffer.push(kind());
        }
        async move {
            if let Some(buffer) = buffer {
                buffer.wait_for_capacity(writer).await;
            }
        }
    }

    /// Writes an event without waiting for the reader.
    #[inline]
    pub(crate) fn push(&self, kind: impl FnOnce() -> EventKind) {
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
    pub(super) fn observer(&self) -> Option<Arc<dyn TaskObserver>> {
        self.0.clone().map(|buffer| buffer as _)
    }

    /// Returns the writer of an attempt of this node, which is inside the graphs that `outer` belongs to.
    pub(super) fn writer(&self, node: impl FnOnce() -> Arc<str>, outer: &EventWriter) -> EventWriter {
        EventWriter(self.0.as_ref().map(|buffer| {
            Arc::new(Writer {
                sink: Self(Some(Arc::clone(buffer))),
                node: node(),
                outer: outer.clone(),
                fields: Mutex::default(),
                waits: Mutex::default(),
            })
        }))
    }

    fn is_reader_behind(&self) -> bool {
        self.0.as_deref().is_some_and(|buffer| buffer.has_capacity() == Some(false))
    }

    pub(super) fn has_reader(&self) -> bool {
        self.0.is_some()
    }

    /// Returns whether the reader went away before the last event.
    pub(super) fn is_abandoned(&self) -> bool {
        self.0.as_deref().is_some_and(|buffer| buffer.state.lock().is_abandoned)
    }
}

/// Task events are written without waiting for the reader, so that a slow reader never slows a task.
impl TaskObserver for Buffer {
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

    fn progressed(&self, node: &str, task: &str, id: TaskId, progress: &TaskProgress, is_live: &dyn Fn() -> bool) {
        let kind = EventKind::TaskProgress {
            node: node.to_owned(),
            task: task.to_owned(),
            id: id.get(),
            fraction: progress.fraction,
            message: progress.message.to_string(),
        };
        let mut state = self.state.lock();
        // Nothing follows the end of a task, whose event is written under this lock after the task has ended.
        if !is_live() {
            return;
        }
        if state.events.len() >= EVENT_CAPACITY {
            state.missed += 1;
            return;
        }
        self.push_locked(state, kind);
    }
}

impl Buffer {
    /// Writes an event without waiting. Events after the last one are discarded.
    pub(super) fn push(&self, kind: EventKind) {
        self.push_locked(self.state.lock(), kind);
    }

    fn push_locked(&self, mut state: MutexGuard<'_, BufferState>, kind: EventKind) {
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
        let is_last = state.is_closed;
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            // The waker is user code, and may not change what becomes of the writer.
            catch_panic(|| reader.wake());
        }
        if is_last {
            self.has_capacity.notify_waiters();
        }
    }

    /// Writes the event of a task, or counts it as missed if the reader is too far behind.
    fn push_task_event(&self, kind: impl FnOnce() -> EventKind) {
        let mut state = self.state.lock();
        if state.events.len() >= TASK_EVENT_CAPACITY {
            state.missed += 1;
            return;
        }
        self.push_locked(state, kind());
    }

    /// Discards the unread events and all later ones, because the reader is gone. Returns whether the run had not ended.
    pub(super) fn close(&self) -> bool {
        let mut state = self.state.lock();
        let is_abandoned = !state.is_closed;
        state.is_closed = true;
        state.is_abandoned |= is_abandoned;
        let unread = std::mem::take(&mut state.events);
        let reader = state.reader.take();
        drop(state);
        catch_panic(|| drop((unread, reader)));
        self.has_capacity.notify_waiters();
        is_abandoned
    }

    /// Returns whether events may be written without waiting for the reader; `None` if they are discarded.
    fn has_capacity(&self) -> Option<bool> {
        let state = self.state.lock();
        (!state.is_closed).then_some(state.events.len() + state.taken < EVENT_CAPACITY)
    }

    async fn wait_for_capacity(&self, writer: &EventWriter) {
        match self.has_capacity() {
            Some(true) => return,
            Some(false) => {}
            // The writer yields from time to time, so that a node that only emits finds out that its run is cancelled.
            None => return consume_budget().await,
        }
        let waiting = Waiting::of(writer);
        loop {
            // The future is created before the check: `notify_waiters` wakes each one that exists when it is called.
            let notified = self.has_capacity.notified();
            if self.has_capacity() != Some(false) {
                return;
            }
            waiting.begin();
            guard_waker(notified).await;
        }
    }

    /// Returns the next event, or registers the reader's waker for it. There is none after the last event. The reader
    /// takes events in batches, and passes the same one each time.
    pub(super) fn poll_next(&self, batch: &mut VecDeque<Event>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        if let Some(event) = batch.pop_front() {
            return Poll::Ready(Some(event));
        }
        let waker = cx.waker().clone();
        let mut state = self.state.lock();
        state.taken = state.events.len().min(BATCH);
        if state.events.len() > BATCH {
            batch.extend(state.events.drain(..BATCH));
        } else {
            std::mem::swap(batch, &mut state.events);
        }
        let next = batch.pop_front();
        let is_pending = next.is_none() && !state.is_closed;
        let waker = if is_pending { state.reader.replace(waker) } else { Some(waker) };
        drop(state);
        self.has_capacity.notify_waiters();
        // The waker is dropped without the lock, as it was cloned, because it is user code.
        drop(waker);
        if is_pending { Poll::Pending } else { Poll::Ready(next) }
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
#[derive(Clone, Debug, Default)]
pub struct EventWriter(Option<Arc<Writer>>);

/// The writer of one attempt of a node.
#[derive(Debug)]
struct Writer {
    sink: Sink,
    node: Arc<str>,
    /// The writer of the graph that the node is in, if that is a node itself.
    outer: EventWriter,
    fields: Mutex<Vec<String>>,
    waits: Mutex<Waits>,
}

/// The time that an attempt has waited for the reader, which its timeout does not include.
#[derive(Debug, Default)]
struct Waits {
    total: Duration,
    /// The number of futures that wait.
    count: usize,
    /// The time at which the first of them began, while the reader is behind.
    since: Option<Instant>,
    /// The attempt's waker, for the end of the last wait.
    attempt: Option<Waker>,
}

impl Waits {
    fn end(&mut self) {
        let last = self.since.take().map(|since| since.elapsed());
        self.total = self.total.saturating_add(last.unwrap_or_default());
    }
}

/// A wait for the reader, which counts as time of none of the attempts that it is inside of.
struct Waiting<'a>(&'a EventWriter);

impl<'a> Waiting<'a> {
    fn of(writer: &'a EventWriter) -> Self {
        for writer in writer.enclosing() {
            writer.waits.lock().count += 1;
        }
        Self(writer)
    }

    /// Begins to count the wait, or goes on.
    fn begin(&self) {
        for writer in self.0.enclosing() {
            writer.waits.lock().since.get_or_insert_with(Instant::now);
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        for writer in self.0.enclosing() {
            let mut waits = writer.waits.lock();
            waits.count -= 1;
            if waits.count > 0 {
                continue;
            }
            waits.end();
            let attempt = waits.attempt.take();
            drop(waits);
            if let Some(attempt) = attempt {
                // The waker may be the user's.
                catch_panic(|| attempt.wake());
            }
        }
    }
}

impl EventWriter {
    /// Writes one event, and waits while the reader is too far behind. `data` is serialized only if there is a reader; if
    /// that fails, the event carries the text of the error instead.
    ///
    /// The node's timeout does not include the wait.
    ///
    /// # Cancel safety
    ///
    /// The event is written before the first await; dropping the future only ends the wait.
    pub async fn emit(&self, name: &str, data: impl Serialize) {
        let Some(Writer { sink, node, .. }) = self.0.as_deref() else {
            return;
        };
        let data = serde_json::to_value(data).unwrap_or_else(|error| error.to_string().into());
        sink.emit(self, || EventKind::Custom { node: node.to_string(), name: name.to_owned(), data }).await;
    }

    /// Returns whether the run has a reader. Check it before computing data that only an event needs.
    #[must_use]
    pub fn has_reader(&self) -> bool {
        self.0.is_some()
    }

    /// Returns the attempt's own writer and those of the graphs that it is in.
    fn enclosing(&self) -> impl Iterator<Item = &Writer> {
        iter::successors(self.0.as_deref(), |writer| writer.outer.0.as_deref())
    }

    /// Returns the time that the attempt has waited for the reader. The result is `Pending` while the attempt waits, and
    /// the caller is woken at the end of the wait.
    pub(super) fn poll_waited(&self, cx: &Context<'_>) -> Poll<Duration> {
        let Some(writer) = self.0.as_deref() else {
            return Poll::Ready(Duration::ZERO);
        };
        let waker = cx.waker().clone();
        let mut waits = writer.waits.lock();
        // A node may keep a future that waited and not poll it again. Its wait is over when the reader has caught up,
        // which wakes the attempt.
        if waits.since.is_some() && !writer.sink.is_reader_behind() {
            waits.end();
        }
        if waits.since.is_none() {
            return Poll::Ready(waits.total);
        }
        let earlier = waits.attempt.replace(waker);
        drop(waits);
        // The old waker is dropped without the lock, as the new one was cloned, because it is user code.
        drop(earlier);
        Poll::Pending
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

//! [`Event`]: what happens in a run, as its [`RunStream`](super::RunStream) tells it, and who writes it.

use std::{
    collections::VecDeque,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::{
    run_id::RunId,
    state::FieldChange,
    task::{TaskId, TaskOutcome, Watch},
};

/// What happened in a run, and when.
///
/// Events are numbered from 0 in the order in which they happened. Serialized, the kind's `type` and fields stand beside
/// the event's own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Event {
    /// Counts the run's events, from 0.
    pub sequence: u64,
    /// When it happened, by the system's clock. Serialized as milliseconds since 1970.
    #[serde(with = "unix_millis")]
    pub time: SystemTime,
    /// The run.
    pub run: RunId,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What can happen in a run. A node inside a subgraph is named `SUBGRAPH/NODE`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// The first event.
    #[non_exhaustive]
    RunStarted {
        /// What the graph is called.
        graph: String,
    },
    /// An attempt of a node begins.
    #[non_exhaustive]
    NodeStarted {
        /// The node.
        node: String,
        /// Which attempt, from 1.
        attempt: u32,
    },
    /// A node succeeded, and its changes count.
    #[non_exhaustive]
    NodeEnded {
        /// The node.
        node: String,
        /// Which attempt it was.
        attempt: u32,
        /// How long the attempt took. Serialized as seconds, as all durations here.
        #[serde(with = "seconds")]
        elapsed: Duration,
    },
    /// An attempt of a node failed, panicked or timed out.
    #[non_exhaustive]
    NodeFailed {
        /// The node.
        node: String,
        /// Which attempt it was.
        attempt: u32,
        /// How long the attempt took.
        #[serde(with = "seconds")]
        elapsed: Duration,
        /// Why.
        error: String,
        /// When the next attempt begins; `None` if there is none.
        #[serde(with = "optional_seconds")]
        retry_in: Option<Duration>,
    },
    /// A node's update was merged into the state. A node in a group is merged with the others, at the join.
    #[non_exhaustive]
    Updated {
        /// The node.
        node: String,
        /// The fields that changed.
        fields: Vec<String>,
    },
    /// A decision was taken.
    #[non_exhaustive]
    RouteTaken {
        /// The node, or group, that the decision follows.
        node: String,
        /// The pattern that matched.
        route: String,
        /// Where the run goes on: a node, or `END`; inside a subgraph `SUBGRAPH/END`.
        to: String,
    },
    /// The branches of a group begin.
    #[non_exhaustive]
    GroupStarted {
        /// The first node of each branch.
        nodes: Vec<String>,
    },
    /// The branches of a group have all ended, and their updates are merged.
    #[non_exhaustive]
    GroupJoined {
        /// The first node of each branch.
        nodes: Vec<String>,
        /// The fields that changed.
        fields: Vec<String>,
    },
    /// A branch failed, or two of them disagree: nothing of the group is merged. Nodes that had started and not ended
    /// were dropped.
    #[non_exhaustive]
    GroupFailed {
        /// The first node of each branch.
        nodes: Vec<String>,
        /// Why.
        error: String,
    },
    /// A node failed, and the run goes on with its `on_error`.
    #[non_exhaustive]
    FallbackTaken {
        /// The node that failed.
        node: String,
        /// Where the run goes on.
        to: String,
    },
    /// What a node wrote with [`EventWriter::emit`].
    #[non_exhaustive]
    Custom {
        /// The node.
        node: String,
        /// What the node called it.
        name: String,
        /// What the node gave.
        data: serde_json::Value,
    },
    /// A node started a task in the background.
    #[non_exhaustive]
    TaskStarted {
        /// The node.
        node: String,
        /// The task's name.
        task: String,
        /// The task's id.
        id: u64,
    },
    /// A task ended that the run had started. Ends after the run's own are not told here.
    #[non_exhaustive]
    TaskEnded {
        /// The node.
        node: String,
        /// The task's name.
        task: String,
        /// The task's id.
        id: u64,
        /// How it ended: `completed`, `failed`, ….
        outcome: String,
    },
    /// The reader is so far behind that it is not told of this many starts and ends of tasks.
    #[non_exhaustive]
    TasksMissed {
        /// How many there were.
        count: u64,
    },
    /// The last event.
    #[non_exhaustive]
    RunEnded {
        /// Why the run did not reach `END`; `None` if it did.
        error: Option<String>,
    },
}

mod unix_millis {
    use std::time::{Duration, SystemTime};

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        serializer.serialize_u64(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
        let since = Duration::from_millis(u64::deserialize(deserializer)?);
        SystemTime::UNIX_EPOCH
            .checked_add(since)
            .ok_or_else(|| serde::de::Error::custom("a time beyond what the system can name"))
    }
}

mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

mod optional_seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[allow(clippy::ref_option, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        duration.map(|duration| duration.as_secs_f64()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        let seconds = Option::<f64>::deserialize(deserializer)?;
        seconds.map(Duration::try_from_secs_f64).transpose().map_err(serde::de::Error::custom)
    }
}

impl EventKind {
    /// The kind's name, as in the `type` of its JSON: what an SSE endpoint calls the event.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::RunStarted { .. } => "run_started",
            Self::NodeStarted { .. } => "node_started",
            Self::NodeEnded { .. } => "node_ended",
            Self::NodeFailed { .. } => "node_failed",
            Self::Updated { .. } => "updated",
            Self::RouteTaken { .. } => "route_taken",
            Self::GroupStarted { .. } => "group_started",
            Self::GroupJoined { .. } => "group_joined",
            Self::GroupFailed { .. } => "group_failed",
            Self::FallbackTaken { .. } => "fallback_taken",
            Self::Custom { .. } => "custom",
            Self::TaskStarted { .. } => "task_started",
            Self::TaskEnded { .. } => "task_ended",
            Self::TasksMissed { .. } => "tasks_missed",
            Self::RunEnded { .. } => "run_ended",
        }
    }
}

/// An error's text: it may be a user's, and panic when it is formatted.
pub(super) fn text_of(error: &impl fmt::Display) -> String {
    let text = catch_unwind(AssertUnwindSafe(|| error.to_string()));
    text.unwrap_or_else(|_| "the error panicked when it was formatted".to_owned())
}

/// How many events wait for the reader before the run waits for it too.
const CAPACITY: usize = 64;

/// How many events wait for the reader before tasks, which never wait, are left out and only counted.
const MOST: usize = 1024;

/// Where a run's events go: nowhere for `invoke`, which pays a look at an `Option` for each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sink(Option<Arc<Buffer>>);

/// Events on their way from the run to its reader.
pub(super) struct Buffer {
    run: RunId,
    queue: Mutex<Queue>,
    /// Notified when the reader has made room.
    room: Notify,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Event>,
    next: u64,
    /// How many of the tasks' events were left out.
    missed: u64,
    reader: Option<Waker>,
    /// The last event is written.
    is_closed: bool,
}

impl Sink {
    /// A sink with a reader.
    pub(super) fn buffered(run: RunId) -> (Self, Arc<Buffer>) {
        let buffer = Arc::new(Buffer { run, queue: Mutex::default(), room: Notify::new() });
        (Self(Some(Arc::clone(&buffer))), buffer)
    }

    /// Writes an event; the future waits while the reader is too far behind.
    ///
    /// Not an `async fn`, so that what the event is made of is not copied into a future where nobody reads.
    #[inline]
    pub(super) fn emit<K: FnOnce() -> EventKind>(&self, kind: K) -> impl Future<Output = ()> + use<'_, K> {
        let buffer = self.0.as_deref();
        if let Some(buffer) = buffer {
            buffer.push(kind());
        }
        async move {
            if let Some(buffer) = buffer {
                buffer.has_room().await;
            }
        }
    }

    /// Notes which fields an update changed, where somebody reads.
    pub(super) fn note(&self, fields: &mut Vec<String>, changes: impl FnOnce() -> Vec<FieldChange>) {
        if self.0.is_some() {
            for change in changes() {
                if !fields.iter().any(|field| field == change.field) {
                    fields.push(change.field.to_owned());
                }
            }
        }
    }

    /// Who is told of the run's background tasks.
    pub(super) fn watch(&self) -> Option<Arc<dyn Watch>> {
        self.0.clone().map(|buffer| buffer as _)
    }

    pub(super) fn writer(&self, node: &Arc<str>) -> EventWriter {
        EventWriter(self.0.as_ref().map(|buffer| {
            Box::new(Writer { sink: Self(Some(Arc::clone(buffer))), node: Arc::clone(node), fields: Mutex::default() })
        }))
    }
}

/// The run's background tasks are told of without waiting for the reader: a task is never slowed by one.
impl Watch for Buffer {
    fn started(&self, node: &str, task: &str, id: TaskId) {
        self.push_of_task(|| EventKind::TaskStarted { node: node.to_owned(), task: task.to_owned(), id: id.get() });
    }

    fn ended(&self, node: &str, task: &str, id: TaskId, outcome: TaskOutcome) {
        let outcome = outcome.as_str().to_owned();
        self.push_of_task(|| EventKind::TaskEnded {
            node: node.to_owned(),
            task: task.to_owned(),
            id: id.get(),
            outcome,
        });
    }
}

impl Buffer {
    /// Writes an event without waiting: for those who must not be slowed by a reader. Nothing follows the last one.
    pub(super) fn push(&self, kind: EventKind) {
        let mut queue = self.lock();
        if queue.is_closed {
            return;
        }
        queue.is_closed = matches!(kind, EventKind::RunEnded { .. });
        let missed = std::mem::take(&mut queue.missed);
        let missed = (missed > 0).then_some(EventKind::TasksMissed { count: missed });
        for kind in missed.into_iter().chain([kind]) {
            let sequence = queue.next;
            queue.next += 1;
            queue.events.push_back(Event { sequence, time: SystemTime::now(), run: self.run, kind });
        }
        let reader = queue.reader.take();
        drop(queue);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Writes an event of a task, unless the reader is too far behind: then it is told later how many there were.
    fn push_of_task(&self, kind: impl FnOnce() -> EventKind) {
        {
            let mut queue = self.lock();
            if queue.events.len() >= MOST {
                queue.missed += 1;
                return;
            }
        }
        self.push(kind());
    }

    /// Nobody reads any more: what is written from now on, and what was, goes nowhere.
    pub(super) fn close(&self) {
        let mut queue = self.lock();
        queue.is_closed = true;
        drop(std::mem::take(&mut queue.events));
    }

    async fn has_room(&self) {
        loop {
            let room = self.room.notified();
            if self.lock().events.len() < CAPACITY {
                return;
            }
            room.await;
        }
    }

    /// The next event; wakes the reader when there is one.
    pub(super) fn poll_pop(&self, cx: &mut Context<'_>) -> Poll<Event> {
        let mut queue = self.lock();
        if let Some(event) = queue.events.pop_front() {
            let has_room = queue.events.len() + 1 == CAPACITY;
            drop(queue);
            if has_room {
                self.room.notify_waiters();
            }
            return Poll::Ready(event);
        }
        queue.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The queue is whole after every statement: a panic elsewhere doesn't spoil it.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("run", &self.run).finish_non_exhaustive()
    }
}

/// Writes custom events from inside a node: progress, tokens, whatever the reader of
/// [`stream`](crate::CompiledGraph::stream) is to see. Nobody reads those of [`invoke`](crate::CompiledGraph::invoke), and
/// they cost nothing there.
///
/// `EventWriter::default()` has no reader: for unit tests of a node's function.
#[derive(Debug, Default)]
pub struct EventWriter(Option<Box<Writer>>);

#[derive(Debug)]
struct Writer {
    sink: Sink,
    node: Arc<str>,
    fields: Mutex<Vec<String>>,
}

impl EventWriter {
    /// Writes one event, and waits while the reader is too far behind. `data` is looked at only where somebody reads; if
    /// it cannot be serialized, the error's text takes its place.
    ///
    /// # Cancel safety
    ///
    /// The event is written before the first await: dropping the future loses only the wait.
    pub async fn emit(&self, name: &str, data: impl Serialize) {
        let Some(Writer { sink, node, .. }) = self.0.as_deref() else {
            return;
        };
        let data = serde_json::to_value(data).unwrap_or_else(|error| error.to_string().into());
        sink.emit(|| EventKind::Custom { node: node.to_string(), name: name.to_owned(), data }).await;
    }

    /// Whether somebody reads, so that what only serves an event need not be made for nobody.
    #[must_use]
    pub fn has_reader(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn changed(&self, changes: impl FnOnce() -> Vec<FieldChange>) {
        if let Some(Writer { sink, fields, .. }) = self.0.as_deref() {
            sink.note(&mut fields.lock().unwrap_or_else(PoisonError::into_inner), changes);
        }
    }

    /// The fields that the node's updates changed, if they did.
    pub(super) fn take_changes(&self) -> Option<Vec<String>> {
        let Writer { fields, .. } = self.0.as_deref()?;
        let fields = std::mem::take(&mut *fields.lock().unwrap_or_else(PoisonError::into_inner));
        (!fields.is_empty()).then_some(fields)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_kinds_name_is_its_type_in_json() {
        let node = || "A".to_owned();
        let zero = std::time::Duration::ZERO;
        let kinds = [
            EventKind::RunStarted { graph: node() },
            EventKind::NodeStarted { node: node(), attempt: 1 },
            EventKind::NodeEnded { node: node(), attempt: 1, elapsed: zero },
            EventKind::NodeFailed { node: node(), attempt: 1, elapsed: zero, error: node(), retry_in: None },
            EventKind::Updated { node: node(), fields: vec![] },
            EventKind::RouteTaken { node: node(), route: node(), to: node() },
            EventKind::GroupStarted { nodes: vec![] },
            EventKind::GroupJoined { nodes: vec![], fields: vec![] },
            EventKind::GroupFailed { nodes: vec![], error: node() },
            EventKind::FallbackTaken { node: node(), to: node() },
            EventKind::Custom { node: node(), name: node(), data: json!(1) },
            EventKind::TaskStarted { node: node(), task: node(), id: 1 },
            EventKind::TaskEnded { node: node(), task: node(), id: 1, outcome: node() },
            EventKind::TasksMissed { count: 1 },
            EventKind::RunEnded { error: None },
        ];
        for kind in kinds {
            assert_eq!(serde_json::to_value(&kind).expect("JSON")["type"], kind.name());
        }
    }
}

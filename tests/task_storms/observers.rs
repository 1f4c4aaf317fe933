//! Those who observe a manager from outside: a subscriber of `tracing`, and readers of events.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use agentflow::task::{TaskEvent, TaskEventStream, TaskId, TaskOutcome};
use tokio::time::sleep;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::Interest,
};

use super::{RUNS_SURVIVE_SUBSCRIBERS, ledger::quiet_panic, world::World};

/// A log line of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Ended { id: u64, outcome: String, has_error: bool },
    AttemptFailed { id: u64, attempt: u64 },
    Rejected { reason: String },
    Other(String),
}

/// Captures the lines of tasks, and panics in each so many-th call after that.
#[derive(Clone, Debug)]
pub(super) struct Recorder(Arc<State>);

#[derive(Debug)]
struct State {
    lines: Mutex<Vec<Line>>,
    calls: AtomicU64,
    panics_every: Option<u64>,
}

impl Recorder {
    pub(super) fn new(panics_every: Option<u64>) -> Self {
        Self(Arc::new(State { lines: Mutex::default(), calls: AtomicU64::new(0), panics_every }))
    }

    pub(super) fn lines(&self) -> Vec<Line> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A call for a span, which may be one of a task.
    fn span_call(&self, id: &span::Id) {
        if *id == task_span() || RUNS_SURVIVE_SUBSCRIBERS {
            self.call();
        }
    }

    fn call(&self) {
        // Relaxed: which of two calls at once panics makes no difference.
        let number = self.0.calls.fetch_add(1, Ordering::Relaxed);
        if self.0.panics_every.is_some_and(|every| number % every == every - 1) && !thread::panicking() {
            quiet_panic("failed printing to stderr");
        }
    }
}

/// The id of all spans of tasks.
fn task_span() -> span::Id {
    span::Id::from_u64(2)
}

#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl Subscriber for Recorder {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("agentflow")
    }

    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        let id = if span.metadata().name() == "agentflow.task" { task_span() } else { span::Id::from_u64(1) };
        self.span_call(&id);
        id
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, id: &span::Id, _: &span::Id) {
        self.span_call(id);
    }

    fn event(&self, event: &Event<'_>) {
        if event.metadata().target() == "agentflow::task" {
            let mut fields = Fields::default();
            event.record(&mut fields);
            let field = |name| fields.0.get(name).cloned();
            let number = |name| field(name).and_then(|number| number.parse().ok());
            let line = match (number("id"), field("outcome"), number("attempt"), field("reason")) {
                (Some(id), Some(outcome), ..) => Line::Ended { id, outcome, has_error: field("error").is_some() },
                (Some(id), None, Some(attempt), _) => Line::AttemptFailed { id, attempt },
                (_, _, _, Some(reason)) => Line::Rejected { reason },
                _ => Line::Other(field("message").unwrap_or_default()),
            };
            self.0.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
        self.call();
    }

    fn enter(&self, id: &span::Id) {
        self.span_call(id);
    }

    fn exit(&self, id: &span::Id) {
        self.span_call(id);
    }

    fn clone_span(&self, id: &span::Id) -> span::Id {
        self.span_call(id);
        id.clone()
    }

    fn try_close(&self, id: span::Id) -> bool {
        self.span_call(&id);
        true
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Happened {
    Spawned,
    Started,
    AttemptFailed(u32),
    Progress,
    Ended(TaskOutcome),
}

/// An event as it was read: its sequence number, and what happened to which task of which name and key.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) sequence: u64,
    pub(super) id: TaskId,
    pub(super) name: String,
    pub(super) key: Option<String>,
    pub(super) happened: Happened,
}

/// The events that one reader has read.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) seen: Vec<Seen>,
    pub(super) missed: u64,
    pub(super) has_ended: bool,
    pub(super) faults: Vec<String>,
    last: u64,
}

impl Reading {
    pub(super) fn add(&mut self, event: TaskEvent, sequence: u64) {
        let (id, name, key, happened) = match event {
            TaskEvent::Missed(count) => {
                self.missed += count;
                self.last += count;
                if self.last != sequence {
                    self.faults.push(format!("{count} were missed: {} is not {sequence}", self.last));
                    self.last = sequence;
                }
                return;
            }
            TaskEvent::Spawned(task) => {
                (task.id(), task.name().to_owned(), task.key().map(str::to_owned), Happened::Spawned)
            }
            TaskEvent::Started(task) => {
                (task.id(), task.name().to_owned(), task.key().map(str::to_owned), Happened::Started)
            }
            TaskEvent::AttemptFailed { task, attempt, .. } => {
                (task.id(), task.name().to_owned(), task.key().map(str::to_owned), Happened::AttemptFailed(attempt))
            }
            TaskEvent::Progress(task) => {
                (task.id(), task.name().to_owned(), task.key().map(str::to_owned), Happened::Progress)
            }
            TaskEvent::Ended(task) => {
                (task.id(), task.name().to_owned(), task.key().map(str::to_owned), Happened::Ended(task.outcome()))
            }
            other => {
                self.faults.push(format!("an unknown event: {other:?}"));
                return;
            }
        };
        if sequence != self.last + 1 {
            self.faults.push(format!("{sequence} came after {}", self.last));
        }
        self.last = sequence;
        self.seen.push(Seen { sequence, id, name, key, happened });
    }

    /// Reads on for as long as there is something to read at once.
    pub(super) fn drain(&mut self, stream: &mut TaskEventStream) {
        use futures::FutureExt;
        loop {
            match stream.next().now_or_never() {
                Some(Some(event)) => self.add(event, stream.sequence()),
                Some(None) => {
                    self.has_ended = true;
                    return;
                }
                None => return,
            }
        }
    }
}

/// Reads all events as they come, with so long a pause after each.
pub(super) async fn read(world: Arc<World>, mut stream: TaskEventStream, pause: Option<Duration>) -> Reading {
    let mut reading = Reading::default();
    while let Some(event) = stream.next().await {
        if let TaskEvent::Ended(task) = &event {
            world.must_be_finished(task.id());
        }
        reading.add(event, stream.sequence());
        if let Some(pause) = pause {
            sleep(pause).await;
        }
    }
    reading.has_ended = true;
    reading
}

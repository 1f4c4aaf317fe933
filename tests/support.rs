//! Helpers shared by several test files.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
};

use agentflow::{
    AgentState, CancellationToken, CompiledGraph, NodeError, RunConfig, RunError, ShutdownReport, State,
    graph::{Node, NodeContext, ParallelContext, ParallelNode},
    run::{EventKind, LastState, RunErrorKind},
};
use futures::StreamExt;
use tokio::task::JoinHandle;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::DefaultGuard,
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
};

/// A captured event, or a captured span with the fields that it was opened with.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) level: Level,
    /// `event` for an event, else the name of the span.
    pub(crate) kind: &'static str,
    pub(crate) fields: BTreeMap<String, String>,
    /// The names of the enclosing spans, innermost first.
    pub(crate) within: Vec<&'static str>,
    /// The names of the spans that this one follows.
    pub(crate) follows: Vec<&'static str>,
}

impl Line {
    /// Returns the field's value, or an empty text if the field is absent.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Line>>>);

impl Log {
    /// Returns the log lines of this library's tasks.
    pub(crate) fn ends(&self) -> Vec<Line> {
        self.lines("event", "agentflow::task")
    }

    /// Returns the spans of this library with this name.
    pub(crate) fn spans(&self, name: &str) -> Vec<Line> {
        self.lines(name, "agentflow")
    }

    /// Returns the events of this library whose message starts with `message`.
    pub(crate) fn events(&self, message: &str) -> Vec<Line> {
        let mut events = self.lines("event", "agentflow");
        events.retain(|event| event.field("message").starts_with(message));
        events
    }

    /// Returns the only event of this library whose message starts with `message`.
    #[track_caller]
    pub(crate) fn event(&self, message: &str) -> Line {
        match &self.events(message)[..] {
            [event] => event.clone(),
            events => panic!("expected one event that starts with `{message}`: {events:?}"),
        }
    }

    fn lines(&self, kind: &str, target: &str) -> Vec<Line> {
        let lines = self.0.lock().unwrap();
        let matches = |line: &&Line| line.kind == kind && line.field("target").starts_with(target);
        lines.iter().filter(matches).cloned().collect()
    }
}

/// Captures the log of this thread until the guard is dropped.
pub(crate) fn capture() -> (Log, DefaultGuard) {
    let log = Log::default();
    let subscriber = tracing_subscriber::registry().with(log.clone());
    (log, tracing::subscriber::set_default(subscriber))
}

struct Fields<'a>(&'a mut BTreeMap<String, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
}

/// The index of a span's line in the log.
struct LineIndex(usize);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Log {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, cx: Context<'_, S>) {
        let metadata = attributes.metadata();
        let mut fields = BTreeMap::from([("target".to_owned(), metadata.target().to_owned())]);
        attributes.record(&mut Fields(&mut fields));
        let span = cx.span(id).unwrap();
        let within = span.scope().skip(1).map(|span| span.name()).collect();
        let mut lines = self.0.lock().unwrap();
        span.extensions_mut().insert(LineIndex(lines.len()));
        lines.push(Line { level: *metadata.level(), kind: metadata.name(), fields, within, follows: Vec::new() });
    }

    fn on_follows_from(&self, id: &span::Id, follows: &span::Id, cx: Context<'_, S>) {
        let index = cx.span(id).unwrap().extensions().get::<LineIndex>().unwrap().0;
        self.0.lock().unwrap()[index].follows.push(cx.span(follows).unwrap().name());
    }

    fn on_event(&self, event: &Event<'_>, cx: Context<'_, S>) {
        let metadata = event.metadata();
        let mut fields = BTreeMap::from([("target".to_owned(), metadata.target().to_owned())]);
        event.record(&mut Fields(&mut fields));
        let within = cx.event_scope(event).into_iter().flatten().map(|span| span.name()).collect();
        self.0.lock().unwrap().push(Line {
            level: *metadata.level(),
            kind: "event",
            fields,
            within,
            follows: Vec::new(),
        });
    }
}

/// Sets a flag when it is dropped.
pub(crate) struct OnDrop<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Yields until every task that is ready has run.
pub(crate) async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// The state of most tests: the nodes that a run visited, and two plain fields.
#[derive(Clone, Debug, Default, PartialEq, State)]
pub(crate) struct Trip {
    #[state(append)]
    pub(crate) steps: Vec<String>,
    pub(crate) count: u32,
    pub(crate) title: String,
}

/// A node that writes its name down.
pub(crate) struct Say;

impl<C: Send + Sync + 'static> Node<Trip, C> for Say {
    type Output = ();

    async fn run(&self, cx: NodeContext<'_, Trip, C>) -> Result<(), NodeError> {
        cx.state.steps.push(cx.node_name().to_owned());
        Ok(())
    }
}

impl<C: Send + Sync + 'static> ParallelNode<Trip, C> for Say {
    type Output = ();

    async fn run_parallel(&self, cx: ParallelContext<'_, Trip, C>) -> Result<(Option<TripUpdate>, ()), NodeError> {
        Ok((Some(Trip::update().steps([cx.node_name()])), ()))
    }
}

/// Runs the app and returns the names that its nodes wrote down.
pub(crate) async fn steps<C: Send + Sync + 'static>(app: &CompiledGraph<Trip, C>) -> Vec<String> {
    app.invoke(Trip::default(), RunConfig::new()).await.unwrap().steps
}

/// Runs the app and returns the error that it ends with.
pub(crate) async fn failure<C: Send + Sync + 'static>(app: &CompiledGraph<Trip, C>) -> RunError {
    app.invoke(Trip::default(), RunConfig::new()).await.unwrap_err()
}

/// Cancels a run of the app while its node waits, and returns the error of the run.
pub(crate) async fn cancelled_midway<C: Send + Sync + 'static>(app: &CompiledGraph<Trip, C>) -> RunError {
    let token = CancellationToken::new();
    let config = RunConfig::new().with_cancellation_token(token.clone());
    let (ended, ()) = tokio::join!(app.invoke(Trip::default(), config), async {
        settle().await;
        token.cancel();
    });
    let error = ended.unwrap_err();
    assert!(matches!(error.kind(), RunErrorKind::Cancelled { .. }), "{error}");
    error
}

/// Spawns `aclose` of the app, and returns when the app refuses new work.
pub(crate) async fn closing(app: &CompiledGraph<AgentState>) -> JoinHandle<ShutdownReport> {
    let app = app.clone();
    let closing = tokio::spawn(async move { app.aclose().await });
    settle().await;
    closing
}

/// Takes the committed state out of the error.
///
/// # Panics
///
/// Panics if the error holds no committed state.
pub(crate) fn committed(error: &mut RunError) -> Trip {
    match error.take_state() {
        Some(LastState::Committed(state)) => state,
        other => panic!("not committed: {other:?}"),
    }
}

/// A log of a test's own, in the order of its entries.
#[derive(Clone, Default)]
pub(crate) struct Journal(Arc<Mutex<Vec<String>>>);

impl Journal {
    pub(crate) fn add(&self, entry: impl Into<String>) {
        self.0.lock().unwrap().push(entry.into());
    }

    pub(crate) fn entries(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// Runs the app and returns its events.
pub(crate) async fn events<C: Send + Sync + 'static>(app: &CompiledGraph<Trip, C>) -> Vec<EventKind> {
    app.stream(Trip::default(), RunConfig::new()).map(|event| event.kind).collect().await
}

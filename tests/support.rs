//! What several files share: nodes made of closures, destructors that tell, and what `tracing` was told.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use agentflow::{BackgroundTaskManager, CancellationToken, Node, NodeContext, NodeError, State};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id},
    subscriber::DefaultGuard,
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
};

/// What a [`step`] is given.
pub(crate) struct Given {
    pub(crate) cancel: CancellationToken,
    pub(crate) tasks: BackgroundTaskManager,
}

/// A node made of a closure, which can hold the test's channels.
pub(crate) fn step<F, R>(body: F) -> Step<F>
where
    F: Fn(Given) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), NodeError>> + Send,
{
    Step(body)
}

/// A node that takes its time.
pub(crate) fn sleeps<S: State, C: Send + Sync + 'static>(time: Duration) -> impl Node<S, C, Output = ()> {
    step(move |_| async move {
        tokio::time::sleep(time).await;
        Ok(())
    })
}

pub(crate) struct Step<F>(F);

impl<S, C, F, R> Node<S, C> for Step<F>
where
    S: State,
    C: Send + Sync + 'static,
    F: Fn(Given) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), NodeError>> + Send,
{
    type Output = ();
    const IN_PLACE: bool = false;

    async fn run(&self, cx: NodeContext<'_, S, C>) -> Result<(), NodeError> {
        let given = Given {
            cancel: cx.cancel.clone(),
            tasks: cx.task_manager(),
        };
        (self.0)(given).await
    }
}

/// Counts something that happens elsewhere.
#[derive(Clone, Default)]
pub(crate) struct Counter(Arc<AtomicUsize>);

impl Counter {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// Counts when it is dropped.
    pub(crate) fn on_drop(&self) -> OnDrop {
        OnDrop(self.clone())
    }
}

pub(crate) struct OnDrop(Counter);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.add();
    }
}

/// Hears what this thread tells `tracing` from now on.
pub(crate) struct Heard {
    records: Arc<Mutex<Records>>,
    _guard: DefaultGuard,
}

#[derive(Default)]
struct Records {
    spans: Vec<SpanRecord>,
    events: Vec<EventRecord>,
}

#[derive(Clone, Debug)]
pub(crate) struct SpanRecord {
    pub(crate) id: u64,
    pub(crate) name: &'static str,
    pub(crate) parent: Option<u64>,
    pub(crate) follows: Vec<u64>,
    pub(crate) fields: Fields,
}

#[derive(Clone, Debug)]
pub(crate) struct EventRecord {
    pub(crate) level: Level,
    pub(crate) span: Option<u64>,
    pub(crate) fields: Fields,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Fields(BTreeMap<&'static str, String>);

impl Fields {
    #[track_caller]
    pub(crate) fn get(&self, name: &str) -> &str {
        self.find(name)
            .unwrap_or_else(|| panic!("no field `{name}` in {:?}", self.0))
    }

    pub(crate) fn find(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

pub(crate) fn listen() -> Heard {
    let records = Arc::default();
    let subscriber = tracing_subscriber::registry().with(Listener(Arc::clone(&records)));
    Heard {
        records,
        _guard: tracing::subscriber::set_default(subscriber),
    }
}

impl Heard {
    /// The spans of this name, in the order in which they were made.
    pub(crate) fn spans(&self, name: &str) -> Vec<SpanRecord> {
        let spans = &self.records.lock().unwrap().spans;
        spans.iter().filter(|span| span.name == name).cloned().collect()
    }

    /// The only span of this name.
    #[track_caller]
    pub(crate) fn span(&self, name: &str) -> SpanRecord {
        let spans = self.spans(name);
        assert_eq!(spans.len(), 1, "{spans:?}");
        spans[0].clone()
    }

    /// The events whose message begins like this.
    pub(crate) fn events(&self, message: &str) -> Vec<EventRecord> {
        let events = &self.records.lock().unwrap().events;
        events
            .iter()
            .filter(|event| event.fields.get("message").starts_with(message))
            .cloned()
            .collect()
    }

    /// The only event whose message begins like this.
    #[track_caller]
    pub(crate) fn event(&self, message: &str) -> EventRecord {
        let events = self.events(message);
        assert_eq!(events.len(), 1, "{events:?}");
        events[0].clone()
    }
}

struct Listener(Arc<Mutex<Records>>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Listener {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, cx: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let parent = cx
            .span(id)
            .and_then(|span| span.parent().map(|parent| parent.id()));
        self.0.lock().unwrap().spans.push(SpanRecord {
            id: id.into_u64(),
            name: attributes.metadata().name(),
            parent: parent.map(|parent| parent.into_u64()),
            follows: Vec::new(),
            fields,
        });
    }

    fn on_follows_from(&self, span: &Id, follows: &Id, _: Context<'_, S>) {
        let spans = &mut self.0.lock().unwrap().spans;
        if let Some(span) = spans.iter_mut().rfind(|record| record.id == span.into_u64()) {
            span.follows.push(follows.into_u64());
        }
    }

    fn on_event(&self, event: &Event<'_>, cx: Context<'_, S>) {
        if !event.metadata().target().starts_with("agentflow") {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.0.lock().unwrap().events.push(EventRecord {
            level: *event.metadata().level(),
            span: cx.event_span(event).map(|span| span.id().into_u64()),
            fields,
        });
    }
}

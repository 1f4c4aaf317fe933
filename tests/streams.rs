//! Streams: the events of a run, while it runs.

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use agentflow::{
    CancellationToken, CompiledGraph, EventWriter, NodeError, RetryPolicy, RunConfig, graph,
    graph::{ParallelContext, ParallelNode},
    node,
    run::{Event, EventKind, RunErrorKind},
};
use futures::StreamExt;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::support::{OnDrop, Say, Trip, TripUpdate, committed, settle};

const SECOND: Duration = Duration::from_secs(1);

/// Returns all events of a run, one short line each.
async fn event_lines(app: &CompiledGraph<Trip>) -> Vec<String> {
    let mut run = app.stream(Trip::default(), RunConfig::new());
    let mut told = Vec::new();
    let mut id = None;
    while let Some(event) = run.next().await {
        assert_eq!(event.sequence, told.len() as u64);
        assert_eq!(*id.get_or_insert(event.run), event.run);
        told.push(short(&event.kind));
    }
    told
}

fn short(kind: &EventKind) -> String {
    match kind {
        EventKind::RunStarted { graph, .. } => format!("run {graph}"),
        EventKind::NodeStarted { node, attempt, .. } => format!("{node} {attempt}"),
        EventKind::NodeEnded { node, attempt, .. } => format!("{node} {attempt} ended"),
        EventKind::NodeFailed { node, attempt, error, retry_in, .. } => {
            format!("{node} {attempt} failed: {error}, again in {retry_in:?}")
        }
        EventKind::Updated { node, fields, .. } => format!("{node} set {}", fields.join(" ")),
        EventKind::RouteTaken { node, route, to, .. } => format!("{node} = {route} -> {to}"),
        EventKind::GroupStarted { nodes, .. } => format!("fork {}", nodes.join(" ")),
        EventKind::GroupJoined { nodes, fields, .. } => {
            format!("join {} set {}", nodes.join(" "), fields.join(" "))
        }
        EventKind::Custom { node, name, data, .. } => format!("{node}: {name} {data}"),
        EventKind::RunEnded { error: None, .. } => "end".into(),
        EventKind::RunEnded { error: Some(error), .. } => format!("end: {error}"),
        other => format!("{other:?}"),
    }
}

#[node]
async fn rename(state: &Trip) -> TripUpdate {
    Trip::update().title("new").steps([state.title.as_str()])
}

#[tokio::test]
async fn a_chain_reports_each_node_and_the_fields_it_set() {
    let app = graph! {
        name = "trip";
        node A = (Say);
        A -> rename -> END
    };
    assert_eq!(
        event_lines(&app).await,
        ["run trip", "A 1", "A 1 ended", "rename 1", "rename set steps title", "rename 1 ended", "end"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_retry_reports_each_attempt_and_the_pause() {
    #[node]
    async fn flaky(_state: &Trip, attempt: u32) -> Result<TripUpdate, NodeError> {
        if attempt < 3 { Err(format!("no {attempt}").into()) } else { Ok(Trip::update().count(1u32)) }
    }

    #[node]
    async fn hopeless() -> Result<(), NodeError> {
        Err("never".into())
    }

    let app = graph! {
        type State = Trip;
        node FLAKY = flaky { retry: RetryPolicy::new(2).backoff(SECOND) };
        FLAKY -> hopeless -> END
    };
    let mut told = event_lines(&app).await;
    let end = told.pop().unwrap();
    assert!(end.starts_with("end: node `hopeless` failed (attempt 1, after "), "{end}");
    assert_eq!(
        told,
        [
            "run graph",
            "FLAKY 1",
            "FLAKY 1 failed: no 1, again in Some(1s)",
            "FLAKY 2",
            "FLAKY 2 failed: no 2, again in Some(2s)",
            "FLAKY 3",
            "FLAKY set count",
            "FLAKY 3 ended",
            "hopeless 1",
            "hopeless 1 failed: never, again in None",
        ]
    );
}

#[tokio::test]
async fn a_decision_reports_the_edge_taken() {
    #[node]
    async fn decide(state: &mut Trip) -> bool {
        state.count += 1;
        state.count > 1
    }

    let app = graph! {
        node A = (Say);
        A -> match |state: &Trip| state.count { 0 => decide, _ => END };
        decide -> match { true => END, false => A };
    };
    assert_eq!(
        event_lines(&app).await,
        [
            "run graph",
            "A 1",
            "A 1 ended",
            "A = 0 -> decide",
            "decide 1",
            "decide 1 ended",
            "decide = false -> A",
            "A 1",
            "A 1 ended",
            "A = _ -> END",
            "end"
        ]
    );
}

#[tokio::test]
async fn a_failed_decision_is_reported_as_its_nodes_failure() {
    fn lost(_: &Trip) -> bool {
        panic!("lost")
    }

    let app = graph! {
        node A = (Say);
        A -> match lost { true => END, false => A }
    };
    let told = event_lines(&app).await;
    assert_eq!(told[1..3], ["A 1", "A 1 failed: panicked: lost, again in None"]);
}

struct Late(Duration);

impl ParallelNode<Trip> for Late {
    type Output = ();

    async fn run_parallel(&self, cx: ParallelContext<'_, Trip>) -> Result<(Option<TripUpdate>, ()), NodeError> {
        sleep(self.0).await;
        Ok((Some(Trip::update().steps([cx.node_name()])), ()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_reports_its_fork_and_its_join() {
    let app = graph! {
        node A = (Say);
        node B = (Late(3 * SECOND));
        node C = (Late(SECOND));
        A -> { B, C -> rename } -> match |_: &Trip| true { true => END, false => END }
    };
    assert_eq!(
        event_lines(&app).await,
        [
            "run graph",
            "A 1",
            "A 1 ended",
            "fork B C",
            "B 1",
            "C 1",
            "C 1 ended",
            "rename 1",
            "rename 1 ended",
            "B 1 ended",
            "join B C set steps title",
            "{B, C} = true -> END",
            "end"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_group_in_a_group_is_joined_before_it() {
    let app = graph! {
        node B = (Late(SECOND));
        node C = (Late(2 * SECOND));
        node D = (Say);
        START -> { { B, C } -> rename, D } -> END
    };
    assert_eq!(
        event_lines(&app).await,
        [
            "run graph",
            "fork {B, C} D",
            "fork B C",
            "B 1",
            "C 1",
            "D 1",
            "D 1 ended",
            "B 1 ended",
            "C 1 ended",
            "join B C set steps",
            "rename 1",
            "rename 1 ended",
            "join {B, C} D set steps title",
            "end"
        ]
    );
}

#[tokio::test]
async fn events_of_a_subgraph_are_enclosed_by_its_node() {
    let app = graph! {
        graph SUB {
            node A = (Say);
            A -> rename -> END
        }
        SUB -> END
    };
    assert_eq!(
        event_lines(&app).await,
        [
            "run graph",
            "SUB 1",
            "SUB/A 1",
            "SUB/A 1 ended",
            "SUB/rename 1",
            "SUB/rename set steps title",
            "SUB/rename 1 ended",
            "SUB 1 ended",
            "end"
        ]
    );
}

#[tokio::test]
async fn a_refused_run_reports_its_end() {
    let app = graph! { node A = (Say); A -> END };
    let _ = app.aclose().await;
    assert_eq!(event_lines(&app).await, ["run graph", "end: the app is shut down: it starts no more runs"]);
}

#[node]
async fn speak(state: &mut Trip, events: &EventWriter) {
    events.emit("hello", json!({ "to": ["you"] })).await;
    events.emit("size", state.steps.len()).await;
    state.title = format!("read: {}", events.has_reader());
}

#[tokio::test]
async fn nodes_emit_custom_events() {
    let app = graph! { speak -> END };
    assert_eq!(event_lines(&app).await[2..4], [r#"speak: hello {"to":["you"]}"#, "speak: size 0"]);
}

#[tokio::test]
async fn a_node_knows_if_its_run_has_a_reader() {
    let app = graph! { speak -> END };
    let state = app.invoke(Trip::default(), RunConfig::new()).await.unwrap();
    assert_eq!(state.title, "read: false");
    let state = app.stream(Trip::default(), RunConfig::new()).finish().await.unwrap();
    assert_eq!(state.title, "read: true");
}

#[tokio::test]
async fn data_is_serialized_only_for_a_reader_and_failures_are_reported() {
    struct Mute;
    impl Serialize for Mute {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            LOOKED_AT.store(true, Ordering::SeqCst);
            Err(serde::ser::Error::custom("speechless"))
        }
    }

    static LOOKED_AT: AtomicBool = AtomicBool::new(false);

    #[node]
    async fn mute(events: &EventWriter) {
        events.emit("mute", Mute).await;
    }

    let app = graph! { type State = Trip; mute -> END };
    app.invoke(Trip::default(), RunConfig::new()).await.unwrap();
    assert!(!LOOKED_AT.load(Ordering::SeqCst));
    assert_eq!(event_lines(&app).await[2], r#"mute: mute "speechless""#);
}

/// Emits a thousand events, and counts those that it has emitted.
struct Chatter(Arc<AtomicUsize>);

impl ParallelNode<Trip> for Chatter {
    type Output = ();

    async fn run_parallel(&self, cx: ParallelContext<'_, Trip>) -> Result<(Option<TripUpdate>, ()), NodeError> {
        for n in 0..1_000 {
            self.0.fetch_add(1, Ordering::SeqCst);
            cx.events.emit("n", n).await;
        }
        Ok((None, ()))
    }
}

#[tokio::test]
async fn a_node_waits_for_the_reader_and_nothing_is_lost() {
    let written = Arc::new(AtomicUsize::new(0));
    let app = graph! {
        type State = Trip;
        node A = (Chatter(written.clone()));
        START -> { A } -> END
    };
    let mut run = app.stream(Trip::default(), RunConfig::new());
    let mut read = Vec::new();
    let mut furthest = 0;
    while let Some(event) = run.next().await {
        if let EventKind::Custom { data, .. } = event.kind {
            read.push(data.as_u64().unwrap());
        }
        furthest = furthest.max(written.load(Ordering::SeqCst) - read.len());
    }
    assert_eq!(read, (0..1_000).collect::<Vec<_>>());
    // The node was ahead of the reader by as many events as the buffer holds.
    assert!((10..=65).contains(&furthest), "{furthest}");
}

#[tokio::test]
async fn events_of_concurrent_branches_are_complete_and_ordered() {
    let written = Arc::new(AtomicUsize::new(0));
    let app = graph! {
        type State = Trip;
        node A = (Chatter(written.clone()));
        node B = (Chatter(written.clone()));
        node C = (Chatter(written.clone()));
        START -> { A, B, C } -> END
    };
    let mut run = app.stream(Trip::default(), RunConfig::new());
    let mut read = [const { Vec::new() }; 3];
    let mut ahead = 0;
    let mut count = 0;
    while let Some(event) = run.next().await {
        if let EventKind::Custom { node, data, .. } = event.kind {
            let branch = ["A", "B", "C"].iter().position(|name| *name == node).unwrap();
            read[branch].push(data.as_u64().unwrap());
            count += 1;
        }
        ahead = ahead.max(written.load(Ordering::SeqCst) - count);
    }
    let all: Vec<_> = (0..1_000).collect();
    assert_eq!(read, [all.clone(), all.clone(), all]);
    assert!(ahead <= 64 + 3, "{ahead}");
}

#[tokio::test(start_paused = true)]
async fn next_is_cancel_safe() {
    let app = graph! {
        type State = Trip;
        node A = (Late(10 * SECOND));
        START -> { A } -> END
    };
    let mut run = app.stream(Trip::default(), RunConfig::new());
    let mut told = Vec::new();
    let mut given_up = 0;
    loop {
        match timeout(SECOND, run.next()).await {
            Ok(Some(event)) => told.push(event.sequence),
            Ok(None) => break,
            Err(_) => given_up += 1,
        }
    }
    assert!(given_up >= 9, "{given_up}");
    assert_eq!(told, (0..6).collect::<Vec<_>>());
    assert!(run.next().await.is_none());
}

#[tokio::test]
async fn a_stream_works_with_combinators() {
    let app = graph! { node A = (Say); node B = (Say); A -> B -> END };
    let names: Vec<_> = app
        .stream(Trip::default(), RunConfig::new())
        .filter_map(|event| {
            std::future::ready(match event.kind {
                EventKind::NodeEnded { node, .. } => Some(node),
                _ => None,
            })
        })
        .collect()
        .await;
    assert_eq!(names, ["A", "B"]);
}

#[tokio::test]
async fn a_dropped_stream_cancels_its_run() {
    struct Hang(Arc<AtomicBool>, Arc<Mutex<Option<CancellationToken>>>);
    impl ParallelNode<Trip> for Hang {
        type Output = ();

        async fn run_parallel(&self, cx: ParallelContext<'_, Trip>) -> Result<(Option<TripUpdate>, ()), NodeError> {
            let _guard = OnDrop(|| self.0.store(true, Ordering::SeqCst));
            *self.1.lock().unwrap() = Some(cx.cancel.clone());
            cx.events.emit("hanging", ()).await;
            pending().await
        }
    }

    let dropped = Arc::new(AtomicBool::new(false));
    let token: Arc<Mutex<Option<CancellationToken>>> = Arc::default();

    let app = graph! {
        type State = Trip;
        node HANG = (Hang(dropped.clone(), token.clone()));
        START -> { HANG } -> END
    };
    let mut run = app.stream(Trip::default(), RunConfig::new());
    while !matches!(run.next().await.unwrap().kind, EventKind::Custom { .. }) {}
    assert!(!dropped.load(Ordering::SeqCst));

    drop(run);
    settle().await;
    assert!(dropped.load(Ordering::SeqCst));
    assert!(token.lock().unwrap().take().unwrap().is_cancelled());
    // The app does not wait for the dropped run.
    assert_eq!(app.aclose().await.runs, agentflow::shutdown::RunsReport::default());
}

#[tokio::test]
async fn a_run_goes_on_without_its_reader() {
    static RAN: AtomicBool = AtomicBool::new(false);

    #[node]
    async fn run() {
        RAN.store(true, Ordering::SeqCst);
    }

    let app = graph! { type State = Trip; run -> END };
    let stream = app.stream(Trip::default(), RunConfig::new());
    settle().await;
    assert!(RAN.load(Ordering::SeqCst));
    assert_eq!(stream.count().await, 4, "every event is kept for the reader");
}

#[tokio::test]
async fn finish_reads_a_run_to_its_end() {
    let written = Arc::new(AtomicUsize::new(0));
    let app = graph! {
        node A = (Chatter(written.clone()));
        node B = (Say);
        START -> { A } -> B -> END
    };
    let state = app.stream(Trip::default(), RunConfig::new()).finish().await.unwrap();
    assert_eq!((state.steps, written.load(Ordering::SeqCst)), (vec!["B".to_owned()], 1_000));

    let mut run = app.stream(Trip::default(), RunConfig::new());
    for _ in 0..10 {
        run.next().await.unwrap();
    }
    assert_eq!(run.finish().await.unwrap().steps, ["B"]);
}

#[tokio::test]
async fn a_stream_ends_as_invoke_does() {
    #[node]
    async fn third(state: &Trip) -> Result<(), NodeError> {
        if state.steps.len() > 2 { Err("third".into()) } else { Ok(()) }
    }

    let app = graph! {
        node A = (Say);
        A -> third -> match |state: &Trip| state.count > 0 { true => END, false => A }
    };
    let done = Trip { count: 1, ..Trip::default() };
    let invoked = app.invoke(done.clone(), RunConfig::new()).await.unwrap();
    let streamed = app.stream(done, RunConfig::new()).finish().await.unwrap();
    assert_eq!(invoked, streamed);

    let mut invoked = app.invoke(Trip::default(), RunConfig::new()).await.unwrap_err();
    let mut streamed = app.stream(Trip::default(), RunConfig::new()).finish().await.unwrap_err();
    for error in [&invoked, &streamed] {
        assert!(matches!(error.kind(), RunErrorKind::Node(failed) if failed.attempt == 1));
        assert_eq!(error.node(), Some("third"));
    }
    assert_eq!(committed(&mut invoked), committed(&mut streamed));
}

#[tokio::test]
async fn an_event_is_flat_json_with_its_kind() {
    let app = graph! { name = "trip"; node A = (Say); A -> END };
    let before = SystemTime::now();
    let mut run = app.stream(Trip::default(), RunConfig::new());
    let event = run.next().await.unwrap();
    assert!(event.time >= before);

    let json = serde_json::to_value(&event).unwrap();
    let since = event.time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(
        json,
        json!({
            "sequence": 0,
            "time": u64::try_from(since.as_millis()).unwrap(),
            "run": event.run.to_string(),
            "type": "run_started",
            "graph": "trip",
        })
    );
}

#[test]
fn every_event_survives_json() {
    let run = "0198c5f0-6d1e-7b3a-8f64-3a1f8f0c9d11";
    let kinds = [
        json!({ "type": "run_started", "graph": "g" }),
        json!({ "type": "node_started", "node": "A", "attempt": 1 }),
        json!({ "type": "node_ended", "node": "A", "attempt": 1, "elapsed": 1.5 }),
        json!({ "type": "node_failed", "node": "A", "attempt": 1, "elapsed": 0.25, "error": "e", "retry_in": 2.0 }),
        json!({ "type": "node_failed", "node": "A", "attempt": 1, "elapsed": 0.25, "error": "e", "retry_in": null }),
        json!({ "type": "updated", "node": "A", "fields": ["title"] }),
        json!({ "type": "route_taken", "node": "A", "route": "Step::Done", "to": "END" }),
        json!({ "type": "group_started", "nodes": ["A", "B"] }),
        json!({ "type": "group_joined", "nodes": ["A", "B"], "fields": [] }),
        json!({ "type": "custom", "node": "A", "name": "token", "data": { "text": "hel" } }),
        json!({ "type": "task_started", "node": "A", "task": "send", "id": 7 }),
        json!({ "type": "task_ended", "node": "A", "task": "send", "id": 7, "outcome": "completed" }),
        json!({ "type": "task_progress", "node": "A", "task": "send", "id": 7, "fraction": 0.5, "message": "half" }),
        json!({ "type": "tasks_missed", "count": 3 }),
        json!({ "type": "run_ended", "error": null }),
        json!({ "type": "run_ended", "error": "e" }),
    ];
    for (sequence, mut json) in kinds.into_iter().enumerate() {
        let event = json.as_object_mut().unwrap();
        event.insert("sequence".into(), sequence.into());
        event.insert("time".into(), 1_754_000_000_123u64.into());
        event.insert("run".into(), run.into());
        let event: Event = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(&event).unwrap(), json);
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_group_and_a_fallback_are_reported() {
    #[node]
    async fn fails(_state: &Trip) -> Result<(), NodeError> {
        Err("no way".into())
    }
    #[node]
    async fn waits(_state: &Trip) {
        std::future::pending::<()>().await;
    }
    let app: CompiledGraph<Trip> = graph! { START -> { waits, fails } -> END };
    let mut run = app.stream(Trip::default(), RunConfig::new());
    let mut kinds = Vec::new();
    while let Some(event) = run.next().await {
        kinds.push(event.kind);
    }
    let told = kinds.iter().find_map(|kind| match kind {
        EventKind::GroupFailed { nodes, error, .. } => Some((nodes.join(", "), error.contains("no way"))),
        _ => None,
    });
    assert_eq!(told, Some(("waits, fails".to_owned(), true)));
    assert!(!kinds.iter().any(|kind| matches!(kind, EventKind::GroupJoined { .. })));

    let app: CompiledGraph<Trip> = graph! {
        node FAILS = fails { on_error: RESCUE };
        node RESCUE = (Say);
        FAILS -> END;
        RESCUE -> END
    };
    let mut run = app.stream(Trip::default(), RunConfig::new());
    let mut taken = Vec::new();
    while let Some(event) = run.next().await {
        if let EventKind::FallbackTaken { node, to, .. } = event.kind {
            taken.push((node, to));
        }
    }
    assert_eq!(taken, [("FAILS".to_owned(), "RESCUE".to_owned())]);
}

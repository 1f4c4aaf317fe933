//! The end of a streamed run, apart from its events; and runs that are refused.

use std::{
    future::pending,
    sync::{Arc, Mutex},
    task::{Context, Wake, Waker},
    time::Duration,
};

use agentflow::{
    CompiledGraph, NodeError, RunConfig, RunError, RunId, graph,
    run::{EventKind, LastState, RunEnd, RunErrorKind, RunEvents, RunStream},
    shutdown::RunsReport,
};
use futures::{FutureExt, StreamExt};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use crate::{
    steps::{sleeps, step},
    support::{Say, Trip, capture, committed, settle},
};

const SECOND: Duration = Duration::from_secs(1);

/// Writes its name down, and then waits for ever.
fn stuck_app() -> CompiledGraph<Trip> {
    graph! {
        node A = (Say);
        node STUCK = (step(|_| pending()));
        A -> STUCK -> END
    }
}

fn quick_app() -> CompiledGraph<Trip> {
    graph! { node A = (Say); A -> END }
}

fn stream(app: &CompiledGraph<Trip>) -> RunStream<Trip> {
    app.stream(Trip::default(), RunConfig::new())
}

#[test]
fn the_parts_of_a_run_can_be_moved_and_polled_anywhere() {
    fn anywhere<T: Send + Unpin + std::fmt::Debug + 'static>() {}
    anywhere::<RunStream<Trip>>();
    anywhere::<RunEvents>();
    anywhere::<RunEnd<Trip>>();
}

#[tokio::test(start_paused = true)]
async fn a_run_splits_into_its_events_and_its_end() {
    let id = RunId::new();
    let run = quick_app().stream(Trip::default(), RunConfig::new().with_run_id(id));
    assert_eq!(run.run_id(), id);
    let (events, end) = run.split();
    assert_eq!((events.run_id(), end.run_id()), (id, id));
    assert_eq!(format!("{end:?}"), format!("RunEnd {{ run: {id:?}, .. }}"));
    let reader = tokio::spawn(events.map(|event| event.kind.name()).collect::<Vec<_>>());
    assert_eq!(end.await.unwrap().steps, ["A"]);
    assert_eq!(reader.await.unwrap(), ["run_started", "node_started", "node_ended", "run_ended"]);
}

#[tokio::test(start_paused = true)]
async fn the_end_is_there_before_the_events_are_read() {
    let (events, end) = stream(&quick_app()).split();
    assert_eq!(end.await.unwrap().steps, ["A"]);
    assert_eq!(events.count().await, 4);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_run_that_failed_is_its_error() {
    let app: CompiledGraph<Trip> = graph! {
        node A = (Say);
        node FAILS = (step(|_| async { Err(NodeError::from("no")) }));
        A -> FAILS -> END
    };
    let (events, end) = stream(&app).split();
    let last = events.map(|event| event.kind).collect::<Vec<_>>().await.pop();
    let mut error = end.await.unwrap_err();
    let Some(EventKind::RunEnded { error: Some(text), .. }) = last else { panic!("{last:?}") };
    assert_eq!(text, error.to_string());
    assert_eq!(committed(&mut error).steps, ["A"]);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_run_whose_events_are_dropped_has_its_state() {
    let (log, _guard) = capture();
    let (events, end) = stream(&stuck_app()).split();
    settle().await;
    drop(events);
    let mut error = end.await.unwrap_err();
    assert!(matches!(error.kind(), RunErrorKind::Cancelled { .. }), "{error}");
    assert_eq!(error.node(), Some("STUCK"));
    assert_eq!(error.take_state::<Trip>().map(LastState::into_inner).unwrap().steps, ["A"]);
    log.event("run cancelled: its reader went away");
}

#[tokio::test(start_paused = true)]
async fn a_run_goes_on_without_its_end() {
    let app: CompiledGraph<Trip> = graph! { node A = (sleeps(SECOND)); A -> END };
    let (mut events, end) = stream(&app).split();
    drop(end);
    let mut last = None;
    while let Some(event) = events.next().await {
        last = Some(event.kind);
    }
    assert!(matches!(last, Some(EventKind::RunEnded { error: None, .. })), "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_an_end_can_be_given_up_and_continued() {
    let app: CompiledGraph<Trip> = graph! { node A = (sleeps(5 * SECOND)); A -> END };
    let (_events, mut end) = stream(&app).split();
    let began = Instant::now();
    for _ in 0..4 {
        assert!(tokio::time::timeout(SECOND, &mut end).await.is_err());
    }
    end.await.unwrap();
    assert_eq!(began.elapsed(), 5 * SECOND);
}

#[track_caller]
fn assert_refused(refused: Result<RunStream<Trip>, RunError>, expected: fn(&RunErrorKind) -> bool) {
    let mut error = refused.unwrap_err();
    assert!(expected(error.kind()), "{error}");
    assert_eq!(committed(&mut error).count, 7);
}

fn seven() -> Trip {
    Trip { count: 7, ..Trip::default() }
}

#[tokio::test(start_paused = true)]
async fn a_closed_app_is_known_before_the_stream() {
    let (log, _guard) = capture();
    let app = quick_app();
    assert!(!app.is_closed());
    let run = app.try_stream(seven(), RunConfig::new()).unwrap();
    assert_eq!(run.finish().await.unwrap().steps, ["A"]);

    let running = app.try_stream(seven(), RunConfig::new()).unwrap();
    let _ = app.aclose().await;
    assert!(app.is_closed() && app.clone().is_closed());
    running.finish().await.unwrap();
    assert_refused(app.try_stream(seven(), RunConfig::new()), |kind| matches!(kind, RunErrorKind::Closed));
    let line = log.event("run rejected");
    assert_eq!((line.level, line.within), (tracing::Level::WARN, vec!["agentflow.run"]));

    let erased = app.erase();
    assert!(erased.is_closed());
    assert_refused(erased.try_stream(seven(), RunConfig::new()), |kind| matches!(kind, RunErrorKind::Closed));
}

#[tokio::test(start_paused = true)]
async fn an_app_is_closed_while_it_drains_except_for_its_own_tasks() {
    let app: CompiledGraph<Trip> = graph! { node A = (sleeps(SECOND)); A -> END };
    let inner = app.clone();
    let job = async move {
        sleep(SECOND).await;
        let run = inner.try_stream(Trip::default(), RunConfig::new())?;
        assert!(inner.is_closed());
        run.finish().await.map(drop)
    };
    let handle = app.task_manager().create_task(job).spawn().unwrap();
    let closing = tokio::spawn({
        let app = app.clone();
        async move { app.aclose().await }
    });
    settle().await;
    assert_refused(app.try_stream(seven(), RunConfig::new()), |kind| matches!(kind, RunErrorKind::Closed));
    handle.await.unwrap();
    assert_eq!(closing.await.unwrap().runs.ended, 1);
}

#[test]
fn a_missing_runtime_is_known_before_the_stream() {
    let app = quick_app();
    assert_refused(app.try_stream(seven(), RunConfig::new()), |kind| matches!(kind, RunErrorKind::NoRuntime));
    // The refused run is not counted as active.
    assert!(app.aclose().now_or_never().is_some());
}

/// The first waker's shutdown of the app, if it was over at once.
struct Stops(CompiledGraph<Trip>, Mutex<Option<RunsReport>>);

impl Wake for Stops {
    fn wake(self: Arc<Self>) {
        *self.1.lock().unwrap() = self.0.stop().now_or_never().map(|report| report.runs);
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_is_over_when_its_end_is_there() {
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let app: CompiledGraph<Trip> = graph! {
        node A = (step(move |_| {
            let wait = Arc::clone(&wait);
            async move {
                wait.notified().await;
                Err(NodeError::from("no"))
            }
        }));
        A -> END
    };
    let (_events, mut end) = stream(&app).split();
    settle().await;
    let stops = Arc::new(Stops(app, Mutex::default()));
    assert!(end.poll_unpin(&mut Context::from_waker(&Waker::from(Arc::clone(&stops)))).is_pending());
    go.notify_one();
    settle().await;
    // No run is left for the shutdown, so none is reported.
    assert_eq!(*stops.1.lock().unwrap(), Some(RunsReport::default()));
    assert_eq!(end.await.unwrap_err().node(), Some("A"));
}

//! Spans and events of runs, nodes and tasks; without a subscriber nothing is formatted.

use std::{fmt, future::pending, time::Duration};

use agentflow::{
    AgentState, BackgroundTaskManager, CompiledGraph, EventWriter, NodeError, RunConfig, RunId, graph, node,
    run::{EventKind, RunErrorKind},
};
use serde::{Serialize, Serializer};
use tracing::{Instrument, Level, subscriber::NoSubscriber};

use crate::{
    steps::{Counter, step},
    support::capture,
};

#[node]
async fn first() {
    tracing::info!(target: "agentflow_tests", "inside a node");
}

#[node]
async fn second(task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
    let work = async { tracing::info!(target: "agentflow_tests", "inside a task") };
    task_manager.create_task(work).name("work").spawn()?;
    Ok(())
}

fn app() -> CompiledGraph<AgentState> {
    graph! {
        type State = AgentState;
        name = "support";
        node SECOND = second;
        first -> SECOND -> END
    }
}

#[tokio::test]
async fn a_run_is_a_span_with_its_graph_run_user_and_thread() {
    let ((log, _guard), run) = (capture(), RunId::new());
    let config = RunConfig::new().with_run_id(run).with_user_id("ada").with_thread_id("t-1");
    app().invoke(AgentState::default(), config).await.unwrap();
    let span = &log.spans("agentflow.run")[0];
    assert_eq!((span.field("graph"), span.field("run")), ("support", &*run.to_string()));
    assert_eq!((span.field("user"), span.field("thread")), ("ada", "t-1"));
}

#[tokio::test]
async fn a_run_without_user_and_thread_has_neither_field() {
    let (log, _guard) = capture();
    app().invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    let span = &log.spans("agentflow.run")[0];
    assert!(!span.fields.contains_key("user") && !span.fields.contains_key("thread"));
    assert!(span.field("run").parse::<RunId>().is_ok());
}

#[tokio::test]
async fn a_run_span_is_a_child_of_the_callers_span() {
    let (log, _guard) = capture();
    let request = tracing::info_span!("request");
    app().invoke(AgentState::default(), RunConfig::new()).instrument(request).await.unwrap();
    assert_eq!(log.spans("agentflow.run")[0].within, ["request"]);
}

#[tokio::test]
async fn each_node_is_a_span_within_the_runs() {
    let (log, _guard) = capture();
    app().invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    let nodes = log.spans("agentflow.node");
    let names: Vec<_> = nodes.iter().map(|span| span.field("node")).collect();
    assert_eq!(names, ["first", "SECOND"]);
    assert!(nodes.iter().all(|span| span.within == ["agentflow.run"]), "{nodes:?}");
    assert_eq!(log.event("inside a node").within, ["agentflow.node", "agentflow.run"]);
}

#[tokio::test]
async fn a_tasks_span_is_its_own_root_and_follows_from_its_node() {
    let (log, _guard) = capture();
    let app = app();
    app.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    app.task_manager().wait_for_all(None).await.unwrap();
    let task = &log.spans("agentflow.task")[0];
    assert_eq!((task.field("name"), task.field("id")), ("work", "1"));
    assert!(task.within.is_empty(), "{task:?}");
    assert_eq!(task.follows, ["agentflow.node"]);
    assert_eq!(log.event("inside a task").within, ["agentflow.task"]);
    assert_eq!(log.event("background task completed").within, ["agentflow.task"]);
}

#[tokio::test]
async fn a_failed_run_records_its_error_in_its_span() {
    let (log, _guard) = capture();
    let app = graph! {
        type State = AgentState;
        node BROKEN = (step(|_| async { Err("the disk is full".into()) }));
        BROKEN -> END
    };
    let error = app.invoke(AgentState::default(), RunConfig::new()).await.unwrap_err();
    let line = log.event("run failed");
    assert_eq!((line.level, &line.within[..]), (Level::ERROR, &["agentflow.run"][..]));
    assert_eq!(line.field("error"), error.to_string());
}

#[tokio::test]
async fn a_refused_run_records_its_error_in_its_span() {
    let (log, _guard) = capture();
    let app = app();
    drop(app.stop().await);
    app.invoke(AgentState::default(), RunConfig::new()).await.unwrap_err();
    let line = log.event("run rejected");
    assert_eq!((line.level, &line.within[..]), (Level::WARN, &["agentflow.run"][..]));
    assert!(log.spans("agentflow.node").is_empty());
}

/// Counts how often it is formatted or serialized.
#[derive(Clone, Default)]
struct Looked(Counter);

impl fmt::Display for Looked {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.add();
        Ok(())
    }
}

impl fmt::Debug for Looked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Looked {}

impl Serialize for Looked {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.add();
        serializer.serialize_unit()
    }
}

/// Runs a graph that emits an event and fails, both with the same value.
async fn emit_and_fail(looked: &Looked) {
    #[node]
    async fn emit(events: &EventWriter, #[inject] looked: &Looked) -> Result<(), Looked> {
        events.emit("looked", looked).await;
        Err(looked.clone())
    }
    let app = graph! { type State = AgentState; emit -> END; compile { services: looked.clone() } };
    app.invoke(AgentState::default(), RunConfig::new()).await.unwrap_err();
}

#[tokio::test]
async fn nothing_is_formatted_without_a_subscriber() {
    let looked = Looked::default();
    {
        // This thread has no subscriber, whatever other tests install on theirs.
        let _guard = tracing::subscriber::set_default(NoSubscriber::default());
        emit_and_fail(&looked).await;
        assert_eq!(looked.0.get(), 0);
    }
    let _listening = capture();
    emit_and_fail(&looked).await;
    assert_eq!(looked.0.get(), 1, "for the error; the run's events have no reader");
}

#[tokio::test(start_paused = true)]
async fn a_runs_shutdown_is_logged_once_by_the_run() {
    let (log, _guard) = capture();
    let app: CompiledGraph<AgentState> = graph! {
        node STUCK = (step(|_| pending()));
        STUCK -> END;
        compile { shutdown_timeout: 1s }
    };
    let (run, report) = tokio::join!(app.invoke(AgentState::default(), RunConfig::new()), app.aclose());
    assert_eq!(report.elapsed, Duration::from_secs(1));
    assert_eq!(log.event("run stopped by a shutdown").field("error"), run.unwrap_err().to_string());
}

/// An error whose `Display` panics.
#[derive(Debug)]
struct Unspeakable;

impl fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("cannot be shown")
    }
}

impl std::error::Error for Unspeakable {}

#[tokio::test]
async fn an_error_whose_display_panics_is_the_runs_error() {
    let (_log, _guard) = capture();
    let app: CompiledGraph<AgentState> = graph! {
        node BROKEN = (step(|_| async { Err(Unspeakable.into()) }));
        BROKEN -> END
    };
    let error = app.invoke(AgentState::default(), RunConfig::new()).await.unwrap_err();
    let RunErrorKind::Node(failure) = error.kind() else { panic!("expected the node's failure") };
    assert!(failure.source.downcast_ref::<Unspeakable>().is_some());
    // A reader receives the end of the run without its cause.
    let mut run = app.stream(AgentState::default(), RunConfig::new());
    let mut last = None;
    while let Some(event) = run.next().await {
        last = Some(event.kind);
    }
    assert!(matches!(last, Some(EventKind::RunEnded { error: Some(_), .. })), "{last:?}");
}

#[tokio::test]
async fn an_attempt_whose_errors_display_panics_is_retried() {
    let (_log, _guard) = capture();
    let attempts = Counter::default();
    let counter = attempts.clone();
    let app: CompiledGraph<AgentState> = graph! {
        node BROKEN = (step(move |_| {
            counter.add();
            let first = counter.get() == 1;
            async move { if first { Err(Unspeakable.into()) } else { Ok(()) } }
        })) { retry: 1 };
        BROKEN -> END
    };
    app.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    assert_eq!(attempts.get(), 2);
}

#[tokio::test]
async fn a_fallback_is_taken_from_an_error_whose_display_panics() {
    let (_log, _guard) = capture();
    let app: CompiledGraph<AgentState> = graph! {
        node BROKEN = (step(|_| async { Err(Unspeakable.into()) })) { on_error: OTHER };
        node OTHER = (step(|_| async { Ok(()) }));
        BROKEN -> END;
        OTHER -> END
    };
    app.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
}

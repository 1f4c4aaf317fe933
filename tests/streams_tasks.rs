//! The task that drives a streamed run: its runtime, and what it inherits from the caller.

use std::{future::pending, sync::Mutex, time::Duration};

use agentflow::{
    BackgroundTaskManager, CompileOptions, CompiledGraph, END, NodeError, RunConfig, StateGraph, TaskContext, graph,
    node,
    run::{EventKind, LastState, RunErrorKind},
    task::TaskId,
};
use futures::{StreamExt, executor::block_on};
use tokio::runtime::{Builder, Runtime};
use tracing::Instrument;

use crate::support::{Say, Trip, capture, settle};

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn app() -> CompiledGraph<Trip> {
    graph! { node A = (Say); A -> END }
}

#[test]
fn a_stream_works_outside_of_a_runtime_on_that_of_the_app() {
    let runtime = runtime();
    let app = runtime.block_on(async { app() });
    let run = app.stream(Trip::default(), RunConfig::new());
    assert_eq!(block_on(run.finish()).unwrap().steps, ["A"]);
}

#[test]
fn a_stream_without_a_runtime_ends_with_an_error_that_has_the_state() {
    let app = app();
    let given = Trip { count: 7, ..Trip::default() };
    let mut run = app.stream(given.clone(), RunConfig::new());
    let kinds: Vec<_> = block_on((&mut run).map(|event| event.kind).collect());
    assert!(
        matches!(&kinds[..], [EventKind::RunStarted { .. }, EventKind::RunEnded { error: Some(_), .. }]),
        "{kinds:?}"
    );
    let mut error = block_on(run.finish()).unwrap_err();
    assert!(matches!(error.kind(), RunErrorKind::NoRuntime), "{error}");
    assert_eq!(error.take_state(), Some(LastState::Committed(given)));
    assert_eq!(error.node(), None);
}

#[test]
fn a_stream_on_a_runtime_that_has_ended_is_no_run() {
    let runtime = runtime();
    let app = runtime.block_on(async { app() });
    drop(runtime);
    let mut error = block_on(app.stream(Trip::default(), RunConfig::new()).finish()).unwrap_err();
    assert!(matches!(error.kind(), RunErrorKind::NoRuntime), "{error}");
    assert_eq!(error.take_state(), Some(LastState::Committed(Trip::default())));
}

#[test]
fn a_run_that_its_runtime_drops_ends_its_stream() {
    let runtime = runtime();
    let (began, has_begun) = std::sync::mpsc::channel();
    let began = Mutex::new(began);
    let app: CompiledGraph<Trip> = graph! {
        node A = (crate::steps::step(move |_| {
            began.lock().unwrap().send(()).unwrap();
            pending()
        }));
        A -> END
    };
    let mut run = runtime.block_on(async { app.stream(Trip::default(), RunConfig::new()) });
    has_begun.recv().unwrap();
    drop(runtime);
    let kinds: Vec<_> = block_on((&mut run).map(|event| event.kind).collect());
    assert!(matches!(kinds.last(), Some(EventKind::RunEnded { error: Some(_), .. })), "{kinds:?}");
    let mut error = block_on(run.finish()).unwrap_err();
    assert!(matches!(error.kind(), RunErrorKind::NoRuntime), "{error}");
    assert_eq!(error.take_state::<Trip>(), None);
}

/// A program with an app in a static, such as a set of tests, may use it from many runtimes.
#[test]
fn a_stream_runs_where_its_caller_does() {
    let first = Builder::new_current_thread().enable_all().build().unwrap();
    let app = first.block_on(async { app() });
    let second = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let run = || async { app.stream(Trip::default(), RunConfig::new()).finish().await.unwrap().steps };
    // The first runtime lives, and runs nothing.
    assert_eq!(second.block_on(run()), ["A"]);
    drop(first);
    assert_eq!(second.block_on(run()), ["A"]);
}

#[tokio::test]
async fn a_streamed_run_is_inside_the_span_in_which_it_was_started() {
    let (log, _guard) = capture();
    let app = app();
    let request = tracing::info_span!("request");
    let run = async { app.stream(Trip::default(), RunConfig::new()) }.instrument(request).await;
    run.finish().await.unwrap();
    assert_eq!(log.spans("agentflow.run")[0].within, ["request"]);
    assert_eq!(log.spans("agentflow.node")[0].within, ["agentflow.run", "request"]);
}

/// The tasks that the node found itself in, and the manager that it was given.
static SEEN: Mutex<Vec<Option<TaskId>>> = Mutex::new(Vec::new());

#[node]
async fn waits_for_all(task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
    tokio::task::yield_now().await;
    SEEN.lock().unwrap().push(TaskContext::current().map(|task| task.id()));
    task_manager.create_task(async {}).name("child").spawn()?;
    task_manager.wait_for_all(Some(Duration::from_secs(1))).await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_run_that_a_task_streams_is_a_part_of_the_task() {
    let mut graph = StateGraph::<Trip>::new();
    graph.add_node("WAIT", waits_for_all {}).set_entry_point("WAIT").add_edge("WAIT", END);
    let app = graph.compile(CompileOptions::new()).unwrap();
    let inner = app.clone();
    let job = async move { inner.stream(Trip::default(), RunConfig::new()).finish().await.map(drop) };
    let handle = app.task_manager().create_task(job).spawn().unwrap();
    let id = handle.id();
    handle.await.unwrap();
    app.stream(Trip::default(), RunConfig::new()).finish().await.unwrap();
    assert_eq!(*SEEN.lock().unwrap(), [Some(id), None]);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_cancelled_takes_the_run_that_it_streams_with_it() {
    let app: CompiledGraph<Trip> = graph! { node A = (crate::steps::step(|_| async { pending().await })); A -> END };
    let inner = app.clone();
    let job = async move { inner.stream(Trip::default(), RunConfig::new()).finish().await.map(drop) };
    let handle = app.task_manager().create_task(job).spawn().unwrap();
    settle().await;
    handle.cancel();
    assert!(handle.await.is_err());
    settle().await;
    assert_eq!(app.aclose().await.runs.ended, 0);
}

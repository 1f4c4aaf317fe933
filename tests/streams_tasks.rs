//! The task that drives a streamed run: its runtime, and what it inherits from the caller.

use std::{future::pending, sync::Mutex, time::Duration};

use agentflow::{
    BackgroundTaskManager, CompileOptions, CompiledGraph, END, NodeError, RetryPolicy, RunConfig, StateGraph,
    TaskContext, graph,
    graph::{Node, NodeContext},
    node,
    run::{EventKind, LastState, RunErrorKind},
    shutdown::RunsReport,
    task::TaskId,
};
use futures::{StreamExt, executor::block_on};
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
};
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
    let (log, _guard) = capture();
    let runtime = runtime();
    let app = runtime.block_on(async { app() });
    drop(runtime);
    let mut run = app.stream(Trip::default(), RunConfig::new());
    let kinds: Vec<_> = block_on((&mut run).map(|event| event.kind).collect());
    assert!(
        matches!(&kinds[..], [EventKind::RunStarted { .. }, EventKind::RunEnded { error: Some(_), .. }]),
        "{kinds:?}"
    );
    let mut error = block_on(run.finish()).unwrap_err();
    assert!(matches!(error.kind(), RunErrorKind::NoRuntime), "{error}");
    assert_eq!(error.take_state(), Some(LastState::Committed(Trip::default())));
    let line = log.event("run dropped by its runtime");
    assert_eq!((line.level, line.within), (tracing::Level::WARN, vec!["agentflow.run"]));
}

/// Shuts the runtime down while the last node of the graph runs. Returns the state that is left of the run.
fn dropped_midway(graph: impl FnOnce(Changes) -> CompiledGraph<Trip>) -> LastState<Trip> {
    let (log, _guard) = capture();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let (began, mut has_begun) = mpsc::unbounded_channel();
    let app = graph(Changes(began));
    let mut run = runtime.block_on(async {
        let run = app.stream(Trip::default(), RunConfig::new());
        has_begun.recv().await.unwrap();
        run
    });
    drop(runtime);
    let kinds: Vec<_> = block_on((&mut run).map(|event| event.kind).collect());
    assert!(matches!(kinds.last(), Some(EventKind::RunEnded { error: Some(_), .. })), "{kinds:?}");
    let mut error = block_on(run.finish()).unwrap_err();
    assert!(matches!(error.kind(), RunErrorKind::NoRuntime), "{error}");
    assert_eq!(log.event("run dropped by its runtime").within, ["agentflow.run"]);
    // The app does not wait for the run.
    assert_eq!(block_on(app.stop()).runs, RunsReport::default());
    error.take_state().unwrap()
}

/// A node that changes the state, and then waits for ever.
struct Changes(mpsc::UnboundedSender<()>);

impl Node<Trip> for Changes {
    type Output = ();

    async fn run(&self, cx: NodeContext<'_, Trip>) -> Result<(), NodeError> {
        cx.state.count = 7;
        self.0.send(())?;
        pending().await
    }
}

#[test]
fn a_run_that_its_runtime_drops_ends_its_stream_and_returns_its_state() {
    let left = dropped_midway(|changes| graph! { node A = (Say); node B = (changes); A -> B -> END });
    assert_eq!(left, LastState::Uncommitted(Trip { steps: vec!["A".into()], count: 7, ..Trip::default() }));
}

#[test]
fn a_run_that_its_runtime_drops_returns_the_committed_state_where_there_is_a_copy() {
    let left = dropped_midway(|changes| {
        graph! {
            node A = (Say);
            node B = (changes) { retry: RetryPolicy::new(2) };
            A -> B -> END
        }
    });
    assert_eq!(left, LastState::Committed(Trip { steps: vec!["A".into()], ..Trip::default() }));
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

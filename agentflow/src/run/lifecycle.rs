//! The life of a run: admission, its span and events, its token and tasks, its end.

use std::{
    pin::pin,
    sync::{Arc, OnceLock},
};

use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    error::{Failure, LastState, NodeFailure, RunError, RunErrorKind},
    event::EventKind,
    event_channel::Sink,
    executor::{Progress, walk},
    interrupt::{Ended, RunDeadline, StopSignals, interruptible},
    last_node::LastNode,
    metrics::{self, RunMeter},
    scope::{PathScope, RunContext},
    start::start_step,
};
use crate::{
    config::RunConfig,
    error::{catch_panic, text_of},
    graph::app::App,
    run_id::RunId,
    state::State,
    task::{RunTasks, TaskRef},
};

/// Runs the graph inside the run's span, between its first and its last event. While the app drains, the run is accepted
/// only if its `starter`, a task of the app, still lives.
pub(super) async fn run<S: State, C: Send + Sync + 'static>(
    app: &App<S, C>,
    start: Option<&str>,
    state: S,
    run_id: RunId,
    config: &RunConfig,
    starter: Option<TaskRef>,
    sink: &Sink,
) -> Result<S, RunError> {
    let span = tracing::info_span!(
        "agentflow.run",
        graph = &*app.name,
        run = %run_id,
        thread = config.thread_id(),
        user = config.user_id(),
    );
    async {
        sink.emit(|| EventKind::RunStarted { graph: app.name.to_string() }).await;
        let ended = admit(app, start, state, run_id, config, starter, sink).await;
        if let Err(error) = &ended {
            // The text contains a node's error, which may panic when it is formatted.
            catch_panic(|| log(error));
        }
        sink.emit(|| EventKind::RunEnded { error: ended.as_ref().err().map(text_of) }).await;
        ended
    }
    .instrument(span)
    .await
}

/// Logs the error of a run once. A cancel is logged at a low level, because the caller asked for it.
fn log(error: &RunError) {
    match error.kind() {
        RunErrorKind::Cancelled { .. } => tracing::debug!(%error, "run cancelled"),
        RunErrorKind::Closed => tracing::warn!(%error, "run rejected"),
        RunErrorKind::ShutDown { .. } => tracing::warn!(%error, "run stopped by a shutdown"),
        _ => tracing::error!(%error, "run failed"),
    }
}

/// Walks the graph, unless the app is shutting down and the run is no part of the work that it waits for.
async fn admit<S: State, C: Send + Sync + 'static>(
    app: &App<S, C>,
    start: Option<&str>,
    mut state: S,
    run_id: RunId,
    config: &RunConfig,
    starter: Option<TaskRef>,
    sink: &Sink,
) -> Result<S, RunError> {
    let entry = match start_step(&app.plan, start) {
        Ok(entry) => entry,
        Err(kind) => return Err(rejected(app, run_id, kind, state)),
    };
    let is_inside = || starter.is_some_and(|task| app.manager.is_live(task));
    let Some(mut guard) = app.runs.start(run_id, is_inside) else {
        return Err(rejected(app, run_id, RunErrorKind::Closed, state));
    };
    let meter = RunMeter::start(&app.name);
    let mut token = RunToken::new(config);
    let cancel = token.token.clone();
    let signals = StopSignals {
        cancel: &cancel,
        shutdown: app.runs.shutdown(),
        deadline: config.run_timeout().map(RunDeadline::after),
    };
    let tasks = OwnTasks::default();
    let context = RunContext {
        id: run_id,
        graph: &app.name,
        config,
        signals,
        manager: &app.manager,
        sink,
        recursion_limit: app.recursion_limit,
        last_node: LastNode::default(),
        tasks: &tasks.0,
    };
    let scope = PathScope::new(&context);
    let progress = Progress::new(entry);
    let ended = {
        let walk = pin!(Some(walk(&app.plan, &app.services, &scope, &mut state, &progress, None)));
        interruptible(walk, signals).await
    };
    if !matches!(ended, Ended::Completed(Ok(()))) {
        // Cancelled before the tasks are waited for, because one of them may wait for the token.
        token.token.cancel();
    }
    if !matches!(ended, Ended::Interrupted(_)) {
        tasks.wait(config, signals).await;
    }
    let current_node = || context.last_node.within(&app.plan, progress.step(&app.plan));
    let failure = match ended {
        Ended::Completed(Ok(())) => {
            token.reached_end = true;
            meter.ended(None);
            guard.reached_end();
            return Ok(state);
        }
        Ended::Completed(Err(failure)) => failure,
        Ended::Interrupted(interrupt) => Failure::new(interrupt.at(current_node()), progress.is_committed()),
        Ended::Panicked(source) => Failure::new(RunErrorKind::Node(NodeFailure::new(current_node(), source)), false),
    };
    meter.ended(Some(&failure.kind));
    let last = if failure.is_committed { LastState::Committed(state) } else { LastState::Uncommitted(state) };
    Err(RunError::new(run_id, failure.kind, last))
}

/// Returns the error of a run that does not start.
fn rejected<S: State, C>(app: &App<S, C>, run_id: RunId, reason: RunErrorKind, state: S) -> RunError {
    metrics::rejected(&app.name, &reason);
    RunError::new(run_id, reason, LastState::Committed(state))
}

/// The tasks that are bound to the run. When the run ends or is dropped, the tasks that must end with it are cancelled.
#[derive(Default)]
struct OwnTasks(OnceLock<Arc<RunTasks>>);

impl OwnTasks {
    /// Waits for the tasks that the run must wait for, unless it is interrupted. That has no effect on the result of the run.
    async fn wait(&self, config: &RunConfig, signals: StopSignals<'_>) {
        if let Some(tasks) = self.0.get() {
            // The caller's token, because the run's own one is cancelled if the run has failed.
            let cancel = config.cancellation_token().cloned().unwrap_or_default();
            let waiting = pin!(Some(tasks.wait()));
            interruptible(waiting, StopSignals { cancel: &cancel, ..signals }).await;
        }
    }
}

impl Drop for OwnTasks {
    fn drop(&mut self) {
        if let Some(tasks) = self.0.get() {
            tasks.run_ended();
        }
    }
}

/// The run's token, a child of the caller's. It is cancelled unless the run reaches `END`, so that work which a node
/// started with the token ends with a failed run.
struct RunToken {
    token: CancellationToken,
    reached_end: bool,
}

impl RunToken {
    fn new(config: &RunConfig) -> Self {
        let token = config.cancellation_token().map_or_else(CancellationToken::new, CancellationToken::child_token);
        Self { token, reached_end: false }
    }
}

impl Drop for RunToken {
    fn drop(&mut self) {
        if !self.reached_end {
            self.token.cancel();
        }
    }
}

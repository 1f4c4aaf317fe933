//! The life of a run: admission, its span and events, its token and tasks, its end.

use std::{
    ops::Deref,
    pin::pin,
    sync::{Arc, OnceLock},
};

use tokio_util::sync::CancellationToken;

use super::{
    error::{Failure, NodeFailure, RunError, RunErrorKind},
    event::EventKind,
    event_channel::Sink,
    executor::walk,
    interrupt::{Ended, RunDeadline, StopSignals, interruptible},
    invocation::Arrival,
    last_node::LastNode,
    metrics::{self, RunMeter},
    progress::Progress,
    scope::{PathScope, RunContext, Storing},
    tracker::{RunGuard, RunTracker},
};
use crate::{
    config::RunConfig,
    graph::app::App,
    panics::{catch_panic, text_of},
    run_id::RunId,
    span::GuardedSpan,
    state::State,
    store::{StoreError, StoreErrorKind},
    task::{RunTasks, SpawnError},
};

/// A run that has not begun, with the decision of the app to accept it or not.
///
/// It keeps the run counted as active until it is dropped.
pub(crate) struct NewRun<T: Deref<Target = RunTracker>> {
    pub(crate) id: RunId,
    config: RunConfig,
    pub(super) span: GuardedSpan,
    /// The token that the caller, or the end of the run's reader, cancels.
    caller: Option<CancellationToken>,
    /// `None` if the app is shutting down, and the run is no part of the work that it waits for.
    guard: Option<RunGuard<T>>,
}

impl<T: Deref<Target = RunTracker>> NewRun<T> {
    /// Asks the app for a run, and creates its span within the caller's. While the app drains, it accepts the run only if
    /// a live task of the app or a node of a live run calls this.
    pub(crate) fn admit<S: State, C>(app: &App<S, C>, tracker: T, config: RunConfig) -> Self {
        let id = config.run_id().unwrap_or_else(RunId::new);
        let config = config.with_run_id(id);
        let span = GuardedSpan::new(|| {
            tracing::info_span!(
                "agentflow.run",
                graph = &*app.name,
                run = %id,
                thread = config.thread_id(),
                user = config.user_id(),
            )
        });
        let guard = RunGuard::start(tracker, id, || app.is_in_a_live_task());
        let caller = config.cancellation_token().cloned();
        Self { id, config, span, caller, guard }
    }

    pub(crate) fn is_accepted(&self) -> bool {
        self.guard.is_some()
    }

    /// Records that the run goes on in another process, or after the next start.
    pub(crate) fn keep(&mut self) {
        if let Some(guard) = &mut self.guard {
            guard.keep();
        }
    }

    /// Makes the end of a reader cancel the run, by the token that is returned: a child of the caller's.
    pub(crate) fn attach_reader(&mut self) -> CancellationToken {
        let reader = child_of(self.caller.as_ref());
        self.caller = Some(reader.clone());
        reader
    }

    /// Reports the end of a run that does not begin.
    pub(super) fn refuse<S: State, C>(
        &mut self,
        app: &App<S, C>,
        state: S,
        kind: RunErrorKind,
        sink: &Sink,
    ) -> RunError {
        self.guard = None;
        metrics::rejected(&app.name, &kind);
        let failure = Failure::committed(kind);
        catch_panic(|| self.span.in_scope(|| log(&failure, sink)));
        sink.push(|| EventKind::RunEnded { error: Some(text_of(&failure)) });
        failure.into_error(self.id, state)
    }
}

/// Runs the graph inside the run's span, from the step at which `progress` is, and writes the last event. If the future is dropped before, the caller still has
/// the state, and `progress` records whether it is committed.
pub(crate) async fn run<S: State, C: Send + Sync + 'static, T: Deref<Target = RunTracker>>(
    app: &App<S, C>,
    state: &mut S,
    progress: &Progress,
    arrival: Arrival<'_>,
    new: &mut NewRun<T>,
    sink: &Sink,
) -> Result<(), Box<Failure>> {
    let NewRun { id, config, span, caller, guard: open } = new;
    let mut guard = open.take();
    let span = span.clone();
    let run = async {
        // The task of a streamed run reports this itself.
        let mut unfinished = Unfinished { has_ended: sink.has_reader() };
        let ended = if let Some(guard) = &mut guard {
            let ended = walk_through(app, state, progress, arrival, *id, config, caller.as_ref(), sink).await;
            if ended.is_ok() {
                guard.reached_end();
            }
            ended
        } else {
            metrics::rejected(&app.name, &RunErrorKind::Closed);
            Err(Failure::committed(RunErrorKind::Closed))
        };
        unfinished.has_ended = true;
        if let Err(failure) = &ended {
            // The text contains a node's error, which may panic when it is formatted.
            catch_panic(|| log(failure, sink));
        }
        if progress.recorder.is_some() {
            // A run on a thread is over when the store has its end.
            *open = guard.take();
        }
        // The run is over before its reader learns of it, or a shutdown that the reader begins would still find it.
        drop(guard.take());
        // A question or a stop is no error of a run on a thread, where another run goes on.
        let is_pause = |failure: &Failure| progress.recorder.is_some() && failure.kind.is_pause();
        let error = ended.as_ref().err().filter(|failure| !is_pause(failure));
        sink.push(|| EventKind::RunEnded { error: error.map(text_of) });
        ended
    };
    span.instrument(run).await
}

/// Logs the end of a run whose future is dropped.
struct Unfinished {
    has_ended: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.has_ended {
            catch_panic(|| tracing::debug!("run cancelled: its future was dropped"));
        }
    }
}

/// Logs the error of a run once. A cancel and a question are logged at a low level: the caller asked for the
/// one, and the other is no failure.
pub(super) fn log(error: &Failure, sink: &Sink) {
    match &error.kind {
        RunErrorKind::Cancelled { .. } if sink.is_abandoned() => {
            tracing::debug!(%error, "run cancelled: its reader went away");
        }
        RunErrorKind::Cancelled { .. } => tracing::debug!(%error, "run cancelled"),
        RunErrorKind::Asked { .. } => tracing::debug!(%error, "run ended with a question"),
        RunErrorKind::Stopped { .. } | RunErrorKind::StillAsking { .. } => tracing::debug!(%error, "run stopped"),
        RunErrorKind::Closed
        | RunErrorKind::NoRuntime
        | RunErrorKind::UnknownNode { .. }
        | RunErrorKind::InsideGroup { .. } => tracing::warn!(%error, "run rejected"),
        RunErrorKind::ShutDown { .. } => tracing::warn!(%error, "run stopped by a shutdown"),
        _ => tracing::error!(%error, "run failed"),
    }
}

/// Walks the graph from the step at which `progress` is to the end. The step receives the arrival.
#[allow(clippy::too_many_arguments, reason = "a walk is given all that its run has")]
async fn walk_through<S: State, C: Send + Sync + 'static>(
    app: &App<S, C>,
    state: &mut S,
    progress: &Progress,
    arrival: Arrival<'_>,
    run_id: RunId,
    config: &RunConfig,
    caller: Option<&CancellationToken>,
    sink: &Sink,
) -> Result<(), Box<Failure>> {
    let meter = RunMeter::start(&app.name);
    let mut token = RunToken::new(caller);
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
        recorder: progress.recorder.as_deref(),
        resume: progress.resume.as_ref(),
        storing: Storing::default(),
    };
    let scope = PathScope::new(&context);
    let ended = {
        let commit = &progress.commit;
        let walk = pin!(Some(walk(&app.plan, &app.services, &scope, state, commit, Some(progress), arrival)));
        app.runs.polling(interruptible(walk, signals)).await
    };
    // The tasks of committed steps are stored however the run has ended, and its end is given after that.
    let ended = match (context.storing.wait().await, ended) {
        (Err(error), Ended::Completed(Ok(()))) => Ended::Completed(Err(Failure::committed(not_stored(error)))),
        (Err(error), ended) => {
            catch_panic(|| tracing::error!(%error, "the durable tasks of a step are not stored"));
            ended
        }
        (Ok(()), ended) => ended,
    };
    if !matches!(ended, Ended::Completed(Ok(()))) {
        // The token is cancelled before the tasks are waited for, because one of them may wait for it.
        token.token.cancel();
    }
    if !matches!(ended, Ended::Interrupted(_)) {
        tasks.wait(caller, signals).await;
    }
    let current_node = || progress.innermost_node(&app.plan, &context.last_node);
    let ended = match ended {
        Ended::Completed(Ok(())) => {
            token.reached_end = true;
            Ok(())
        }
        Ended::Completed(Err(failure)) => Err(failure),
        Ended::Interrupted(interrupt) => {
            Err(Failure::new(interrupt.at(current_node()), progress.commit.is_committed()))
        }
        Ended::Panicked(source) => {
            Err(Failure::new(RunErrorKind::Node(NodeFailure::new(current_node(), source)), false))
        }
    };
    meter.ended(ended.as_ref().err().map(|failure| &failure.kind));
    ended
}

/// Returns the error of a run that reached its end, and whose durable tasks are not stored.
fn not_stored(error: SpawnError) -> RunErrorKind {
    match error {
        SpawnError::NotStored { kind, .. } => RunErrorKind::Store(StoreError::new("enqueue", kind)),
        other => RunErrorKind::Store(StoreError::new("enqueue", StoreErrorKind::Other).with_source(other)),
    }
}

/// The tasks that are bound to the run. When the run ends or is dropped, the tasks that must end with it are cancelled.
#[derive(Default)]
struct OwnTasks(OnceLock<Arc<RunTasks>>);

impl OwnTasks {
    /// Waits for the tasks that the run must wait for, unless it is interrupted. That has no effect on the result of the run.
    async fn wait(&self, caller: Option<&CancellationToken>, signals: StopSignals<'_>) {
        if let Some(tasks) = self.0.get() {
            // The caller's token ends the wait, because the run's own one is cancelled if the run has failed.
            let cancel = caller.cloned().unwrap_or_default();
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
    fn new(caller: Option<&CancellationToken>) -> Self {
        Self { token: child_of(caller), reached_end: false }
    }
}

fn child_of(token: Option<&CancellationToken>) -> CancellationToken {
    token.map_or_else(CancellationToken::new, CancellationToken::child_token)
}

impl Drop for RunToken {
    fn drop(&mut self) {
        if !self.reached_end {
            self.token.cancel();
        }
    }
}

//! The executor: walks a compiled graph from node to node.

mod attempt;
mod error;
mod events;
mod group;
mod interrupt;
mod join;
mod scope;
mod stream;

use std::{
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::{task::consume_budget, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use attempt::{Sequential, attempts, chosen};
pub(crate) use error::Failure;
pub use error::{LastState, NodeFailure, RunError, RunErrorKind};
pub(crate) use events::Sink;
use events::text_of;
pub use events::{Event, EventKind, EventWriter};
use group::group;
use interrupt::{Ended, interruptible};
pub(crate) use scope::Scope;
use scope::{Common, Signals, Timeout, Trail};
pub use stream::RunStream;

pub use crate::{
    config::{ConfigValueError, RunConfig},
    run_id::{InvalidRunId, RunId},
};

use crate::{
    State,
    error::quietly,
    graph::{App, Plan, Step, Way, Work},
    task::RunTasks,
};

/// Runs the graph once. Every run has its own state, token and id; it shares the app's manager and context.
pub(crate) async fn run<S: State, C: Send + Sync + 'static>(
    app: &App<S, C>,
    state: S,
    config: RunConfig,
) -> Result<S, RunError> {
    let (run_id, config) = identified(config);
    run_with(app, state, run_id, &config, &Sink::default()).await
}

/// The same run, with a reader of its events.
pub(crate) fn stream<S: State, C: Send + Sync + 'static>(
    app: Arc<App<S, C>>,
    state: S,
    config: RunConfig,
) -> RunStream<S> {
    let (run_id, config) = identified(config);
    let (sink, buffer) = Sink::buffered(run_id);
    let run = Box::pin(async move { run_with(&app, state, run_id, &config, &sink).await });
    RunStream::new(buffer, run)
}

fn identified(config: RunConfig) -> (RunId, RunConfig) {
    let run_id = config.run_id().unwrap_or_else(RunId::new);
    (run_id, config.with_run_id(run_id))
}

async fn run_with<S: State, C: Send + Sync + 'static>(
    app: &App<S, C>,
    state: S,
    run_id: RunId,
    config: &RunConfig,
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
        let ended = admitted(app, state, run_id, config, sink).await;
        if let Err(error) = &ended {
            // The text is a node's error's, which may panic when it is formatted.
            quietly(|| log(error));
        }
        sink.emit(|| EventKind::RunEnded { error: ended.as_ref().err().map(text_of) }).await;
        ended
    }
    .instrument(span)
    .await
}

/// Says once what ended a run, and as loudly as it deserves: a caller who cancels, or comes too late, knows.
fn log(error: &RunError) {
    match error.kind() {
        RunErrorKind::Cancelled { .. } => tracing::debug!(%error, "run cancelled"),
        RunErrorKind::Closed => tracing::warn!(%error, "run rejected"),
        RunErrorKind::ShutDown { .. } => tracing::warn!(%error, "run stopped by a shutdown"),
        _ => tracing::error!(%error, "run failed"),
    }
}

async fn admitted<S: State, C: Send + Sync + 'static>(
    app: &App<S, C>,
    mut state: S,
    run_id: RunId,
    config: &RunConfig,
    sink: &Sink,
) -> Result<S, RunError> {
    let Some(mut ticket) = app.runs.enter(run_id) else {
        return Err(RunError::new(run_id, RunErrorKind::Closed, LastState::Committed(state)));
    };
    let mut token = RunToken::new(config);
    let cancel = token.token.clone();
    let timeout = config.run_timeout();
    let signals = Signals {
        cancel: &cancel,
        unfinished: app.runs.unfinished(),
        timeout: timeout.map(|limit| Timeout { limit, deadline: Instant::now().checked_add(limit) }),
    };
    let tasks = OwnTasks::default();
    let common = Common {
        id: run_id,
        config,
        signals,
        manager: &app.manager,
        sink,
        limit: app.recursion_limit,
        trail: Trail::new(app.nodes),
        tasks: &tasks.0,
    };
    let scope = Scope::new(&common);
    let progress = Progress::new(app.plan.entry);
    let ended = {
        let walk = pin!(Some(walk(&app.plan, &app.services, &scope, &mut state, &progress)));
        interruptible(walk, signals).await
    };
    if !matches!(ended, Ended::Itself(Ok(()))) {
        // Before the wait: one of the tasks may wait for it.
        token.token.cancel();
    }
    if !matches!(ended, Ended::Interrupted(_)) {
        tasks.wait(config, signals).await;
    }
    let failure = match ended {
        Ended::Itself(Ok(())) => {
            token.is_done = true;
            ticket.reached_end();
            return Ok(state);
        }
        Ended::Itself(Err(failure)) => failure,
        Ended::Interrupted(interrupt) => {
            Failure::new(interrupt.at(common.trail.innermost(progress.node(&app.plan))), progress.is_committed())
        }
        Ended::Panicked(source) => {
            let node = common.trail.innermost(progress.node(&app.plan));
            let failure = NodeFailure::new(node, source);
            Failure::new(RunErrorKind::Node(failure), false)
        }
    };
    let last = if failure.is_committed { LastState::Committed(state) } else { LastState::Uncommitted(state) };
    Err(RunError::new(run_id, failure.kind, last))
}

/// Where a walk is, for those who look at it from outside.
pub(crate) struct Progress {
    step: AtomicUsize,
    /// Whether the state is as the last node that succeeded left it.
    is_committed: AtomicBool,
}

impl Progress {
    pub(crate) fn new(entry: usize) -> Self {
        Self { step: AtomicUsize::new(entry), is_committed: AtomicBool::new(true) }
    }

    fn at(&self, step: usize, is_committed: bool) {
        self.step.store(step, Ordering::Relaxed);
        self.is_committed.store(is_committed, Ordering::Relaxed);
    }

    fn node<S: State, C>(&self, plan: &Plan<S, C>) -> Arc<str> {
        Arc::clone(&plan.steps[self.step.load(Ordering::Relaxed)].name)
    }

    fn is_committed(&self) -> bool {
        self.is_committed.load(Ordering::Relaxed)
    }
}

/// Walks a graph, or a subgraph, from its entry to END.
pub(crate) async fn walk<S: State, C: Send + Sync + 'static>(
    plan: &Plan<S, C>,
    services: &C,
    scope: &Scope<'_>,
    state: &mut S,
    progress: &Progress,
) -> Result<(), Box<Failure>> {
    let mut at = plan.entry;
    let mut error: Option<NodeFailure> = None;
    loop {
        let step = &plan.steps[at];
        progress.at(at, !step.is_in_place());
        let way = match run_step(plan, step, services, scope, state, error.as_ref()).await {
            Ok(way) => way,
            Err(failure) => {
                let Some(fallback) = step.on_error else { return Err(failure) };
                let failure = failure.into_recoverable()?;
                // The text is the node's error's, which may panic when it is formatted.
                quietly(
                    || tracing::warn!(node = &*step.name, error = %failure, "node failed, going on with its fallback"),
                );
                error = Some(failure);
                at = fallback;
                let to = &plan.steps[at].name;
                let taken = || EventKind::FallbackTaken {
                    node: scope.path(&step.name).to_string(),
                    to: scope.path(to).to_string(),
                };
                scope.run.sink.emit(taken).await;
                continue;
            }
        };
        error = None;
        progress.at(at, true);
        // A loop of nodes that never wait lets others have the thread from time to time.
        consume_budget().await;
        let Some(Way { label, to }) = step.ways.get(way) else {
            return Ok(());
        };
        if let Some(route) = label {
            scope
                .run
                .sink
                .emit(|| EventKind::RouteTaken {
                    node: scope.path(&step.name).to_string(),
                    route: route.to_string(),
                    to: to.map_or_else(|| scope.end(), |to| scope.path(&plan.steps[to].name).to_string()),
                })
                .await;
        }
        match to {
            Some(to) => at = *to,
            None => return Ok(()),
        }
    }
}

/// Runs one step; gives the index of the way on.
async fn run_step<S: State, C: Send + Sync + 'static>(
    plan: &Plan<S, C>,
    step: &Step<S, C>,
    services: &C,
    scope: &Scope<'_>,
    state: &mut S,
    error: Option<&NodeFailure>,
) -> Result<usize, Box<Failure>> {
    match &step.work {
        Work::Node(node) => {
            let path = scope.enter(&step.name)?;
            let may_come_back = step.options.retry.is_some() || step.on_error.is_some();
            let may_be_changed = node.is_in_place() || step.decides();
            let before = (may_come_back && may_be_changed).then(|| state.clone());
            let mut node = Sequential {
                node: &**node,
                state,
                before,
                is_written: AtomicBool::new(false),
                router: step.choose.as_deref(),
                services,
            };
            attempts(&mut node, &path, &step.options, scope, error).await
        }
        Work::Group(branches) => {
            group(plan, branches, services, scope, state).await?;
            let way = step.choose.as_deref().map_or(Ok(0), |router| chosen(router, state));
            way.map_err(|source| {
                Failure::committed(RunErrorKind::Node(NodeFailure::new(scope.path(&step.name).into_owned(), source)))
            })
        }
        // Runs in a group only; the graph is not compiled otherwise.
        Work::Branch(_) => Ok(0),
    }
}

/// The tasks that the run answers for. Those that are to end with it are cancelled when it has ended, or is dropped.
#[derive(Default)]
struct OwnTasks(OnceLock<Arc<RunTasks>>);

impl OwnTasks {
    /// Waits for those that the run is to wait for, unless it is interrupted. What the run brought stands either way.
    async fn wait(&self, config: &RunConfig, signals: Signals<'_>) {
        if let Some(tasks) = self.0.get() {
            // The caller's token: that of the run is cancelled when it has failed.
            let cancel = config.cancellation_token().cloned().unwrap_or_default();
            let waiting = pin!(Some(tasks.wait()));
            interruptible(waiting, Signals { cancel: &cancel, ..signals }).await;
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

/// The run's token: cancelled with the caller's, and when the run ends in any way but at `END`, so that what a node
/// started with the token ends with the run.
struct RunToken {
    token: CancellationToken,
    is_done: bool,
}

impl RunToken {
    fn new(config: &RunConfig) -> Self {
        let token = config.cancellation_token().map_or_else(CancellationToken::new, CancellationToken::child_token);
        Self { token, is_done: false }
    }
}

impl Drop for RunToken {
    fn drop(&mut self) {
        if !self.is_done {
            self.token.cancel();
        }
    }
}

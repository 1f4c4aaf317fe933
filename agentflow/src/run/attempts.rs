//! Attempts: runs a node until it succeeds or its retry policy gives up.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep};

use super::{
    branch_log::BranchLog,
    commit_mark::CommitMark,
    error::{Failure, NodeFailure, RunErrorKind},
    event::EventKind,
    invocation::{Arrival, Invocation},
    metrics::AttemptMeter,
    path_name::NodePath,
    scope::PathScope,
};
use crate::{
    attempt::{AttemptFault, guarded},
    carried::Slot,
    error::{AttemptTimedOut, NodeError},
    graph::{
        options::NodeOptions,
        plan::{ErasedNode, ErasedParallelNode, Router},
    },
    panics::{catch_panic, text_of},
    retry::Delays,
    span::GuardedSpan,
    state::State,
    task::AttemptOutbox,
};

/// A node with the state that its attempts run on.
pub(super) trait Attempt: Send {
    type Output: Send;

    fn start<'a>(&'a mut self, invocation: &'a Invocation<'a>) -> BoxFuture<'a, Result<Self::Output, NodeError>>;

    /// Takes the decision after the node, if it is one from the state. An error of the decision is the node's error.
    fn route(&mut self, output: Self::Output, slot: &Slot) -> Result<Self::Output, NodeError>;

    /// Restores the state from before the first attempt, after one has failed. Returns whether the state is that one.
    fn roll_back(&mut self) -> bool;

    /// Keeps the changes of an attempt that succeeded.
    fn commit(&mut self) {}

    /// Returns whether an update of the node has to be undone if a reducer panics.
    fn undoes_updates(&self) -> bool {
        false
    }
}

/// The attempts of a node that changes the state.
pub(super) struct SequentialAttempt<'s, S, C> {
    pub(super) node: &'s dyn ErasedNode<S, C>,
    pub(super) state: &'s mut S,
    /// A copy of the state, if it may have to be restored.
    pub(super) before: Option<S>,
    /// Set if there is no such copy because the node only reads the state, and yet an update of its own has to be undone if
    /// a reducer panics.
    pub(super) undoes_updates: bool,
    pub(super) commit: &'s CommitMark,
    /// Takes the decision from the state; without a router, the node returns the index of its outgoing edge itself.
    pub(super) router: Option<&'s dyn Router<S>>,
    pub(super) services: &'s C,
}

/// An interrupt drops the node in the middle of an attempt or between two. The state is what it was before the node, if
/// there is a copy.
impl<S, C> Drop for SequentialAttempt<'_, S, C> {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            // The destructor of the state is user code and may panic.
            catch_panic(|| *self.state = before);
            self.commit.commit();
        }
    }
}

impl<S: State, C: Send + Sync + 'static> Attempt for SequentialAttempt<'_, S, C> {
    /// The index of the outgoing edge.
    type Output = usize;

    fn start<'a>(&'a mut self, invocation: &'a Invocation<'a>) -> BoxFuture<'a, Result<usize, NodeError>> {
        self.node.run(self.state, self.services, invocation, self.commit)
    }

    fn route(&mut self, edge: usize, slot: &Slot) -> Result<usize, NodeError> {
        let Some(router) = self.router else { return Ok(edge) };
        let edge = routed(router, self.state, slot);
        if edge.is_err() && self.node.mutates_state() {
            // The decision is a part of the node, which has therefore failed, even if it is a graph that succeeded.
            self.commit.changes_begin();
        }
        edge
    }

    fn roll_back(&mut self) -> bool {
        if let Some(before) = &self.before {
            self.state.clone_from(before);
            self.commit.commit();
        }
        self.commit.is_committed()
    }

    fn commit(&mut self) {
        // The destructor of the state is user code and may panic.
        let before = self.before.take();
        catch_panic(|| drop(before));
        self.commit.commit();
    }

    fn undoes_updates(&self) -> bool {
        self.undoes_updates
    }
}

/// The attempts of a node in a branch.
pub(super) struct ParallelAttempt<'s, S: State, C> {
    pub(super) node: &'s dyn ErasedParallelNode<S, C>,
    pub(super) state: &'s S,
    pub(super) services: &'s C,
    /// Takes the decision from the state, as in [`SequentialAttempt`].
    pub(super) router: Option<&'s dyn Router<S>>,
    /// The destination of the updates. They are not returned, because every future that they pass through would move them.
    pub(super) log: &'s mut BranchLog<S>,
    /// The number of updates in the log before the node.
    pub(super) before: usize,
    /// The state with the updates of the node, if its decision was taken from it.
    pub(super) after: Option<S>,
}

impl<S: State, C: Send + Sync + 'static> Attempt for ParallelAttempt<'_, S, C> {
    /// The index of the outgoing edge.
    type Output = usize;

    fn start<'a>(&'a mut self, invocation: &'a Invocation<'a>) -> BoxFuture<'a, Result<usize, NodeError>> {
        self.node.run(self.state, self.services, invocation, self.log)
    }

    fn route(&mut self, edge: usize, slot: &Slot) -> Result<usize, NodeError> {
        let Some(router) = self.router else { return Ok(edge) };
        // The updates are merged by code of the state.
        let after = catch_unwind(AssertUnwindSafe(|| {
            let mut after = self.state.clone();
            self.log.iter().skip(self.before).for_each(|entry| after.apply(entry.update.clone()));
            after
        }));
        let after = self.after.insert(after.map_err(NodeError::panicked)?);
        routed(router, after, slot)
    }

    fn roll_back(&mut self) -> bool {
        self.log.truncate(self.before);
        true
    }
}

/// Calls the router; its panic becomes an error.
pub(super) fn routed<S>(router: &dyn Router<S>, state: &S, slot: &Slot) -> Result<usize, NodeError> {
    catch_unwind(AssertUnwindSafe(|| router.route(state, slot))).unwrap_or_else(|panic| Err(NodeError::panicked(panic)))
}

/// The failure of an attempt.
struct FailedAttempt {
    source: NodeError,
    elapsed: Duration,
}

/// Runs the node until an attempt succeeds or its policy gives up.
pub(super) async fn run_attempts<A: Attempt>(
    node: &mut A,
    path: &NodePath<'_>,
    options: &NodeOptions,
    scope: &PathScope<'_>,
    arrival: &Arrival<'_>,
) -> Result<A::Output, Box<Failure>> {
    let running = scope.run.last_node.watch(path);
    let undoes_updates = node.undoes_updates();
    let (events, outbox) = (scope.writer(path), AttemptOutbox::default());
    let invocation = Invocation { scope, path, attempt: 1, arrival, events, outbox, undoes_updates };
    let ended = match run_attempt(node, &invocation, options.timeout).await {
        Ok(output) => Ok(output),
        // The future is boxed because most nodes succeed: without the box, that of every step would be as large.
        Err(failed) => Box::pin(retry_attempts(node, failed, invocation, options)).await,
    };
    running.ended();
    ended
}

/// Continues after the first attempt has failed.
async fn retry_attempts<A: Attempt>(
    node: &mut A,
    mut failed: FailedAttempt,
    mut invocation: Invocation<'_>,
    options: &NodeOptions,
) -> Result<A::Output, Box<Failure>> {
    let (scope, path) = (invocation.scope, invocation.path);
    let now = Instant::now();
    let began = now.checked_sub(failed.elapsed).unwrap_or(now);
    let mut delays = options.retry.as_ref().map(|retry| retry.delays(began));
    loop {
        scope.run.last_node.forget();
        let delay = next_delay(node, failed, &invocation, delays.as_mut())?;
        if !delay.is_zero() {
            sleep(delay).await;
        }
        // A node that failed because its run is stopping would fail again.
        scope.check_signals(|| Arc::clone(path.name()))?;
        invocation.attempt += 1;
        invocation.events = scope.writer(path);
        invocation.outbox = AttemptOutbox::default();
        match run_attempt(node, &invocation, options.timeout).await {
            Ok(output) => return Ok(output),
            Err(next) => failed = next,
        }
    }
}

/// Returns the delay before the next attempt, or the failure if there is no further attempt, as after a question.
fn next_delay<A: Attempt>(
    node: &mut A,
    FailedAttempt { source, elapsed }: FailedAttempt,
    invocation: &Invocation<'_>,
    delays: Option<&mut Delays<'_>>,
) -> Result<Duration, Box<Failure>> {
    let Invocation { scope, path, attempt, .. } = *invocation;
    let is_committed = node.roll_back();
    let failure =
        Failure::of_node(NodeFailure { node: Arc::clone(path.name()), attempt, elapsed, source }, is_committed);
    if let RunErrorKind::StillAsking { .. } = failure.kind {
        return Err(failure);
    }
    if let RunErrorKind::Asked { node, question, .. } = &failure.kind {
        scope.run.sink.push(|| EventKind::NodeAsked {
            node: path.name().to_string(),
            attempt,
            elapsed,
            inside: (node != path.name()).then(|| node.to_string()),
            // The text is JSON that was written here.
            question: serde_json::from_str(question.get()).unwrap_or_default(),
        });
        return Err(failure);
    }
    // An interrupt of the run or a conflict inside a subgraph is no failure of this attempt, and is not retried.
    let delay = match &failure.kind {
        RunErrorKind::Node(failed) if is_committed => {
            delays.and_then(|delays| delay_after(delays, path.name(), &failed.source))
        }
        _ => None,
    };
    let error = || match &failure.kind {
        RunErrorKind::Node(failed) if failed.node == *path.name() => text_of(&failed.source),
        kind => text_of(kind),
    };
    let failed =
        || EventKind::NodeFailed { node: path.name().to_string(), attempt, elapsed, error: error(), retry_in: delay };
    scope.run.sink.push(failed);
    let Some(delay) = delay else { return Err(failure) };
    // The error belongs to the user and may panic when it is formatted.
    catch_panic(
        || tracing::warn!(node = &**path.name(), attempt, retry_in = ?delay, error = %failure.kind, "attempt failed"),
    );
    Ok(delay)
}

/// Returns the delay that the policy asks for. Its predicate is user code: if it panics there is no further attempt, and
/// the node keeps its own error.
fn delay_after(delays: &mut Delays<'_>, path: &Arc<str>, error: &NodeError) -> Option<Duration> {
    let delay = catch_unwind(AssertUnwindSafe(|| delays.after(error.as_error())));
    delay.unwrap_or_else(|panic| {
        let panic = NodeError::panicked(panic);
        catch_panic(|| tracing::error!(node = &**path, error = %panic, "the retry policy panicked"));
        None
    })
}

/// Runs the node once, with the decision that follows it.
async fn run_attempt<A: Attempt>(
    node: &mut A,
    invocation: &Invocation<'_>,
    timeout: Option<Duration>,
) -> Result<A::Output, FailedAttempt> {
    let Invocation { scope, path, attempt, .. } = *invocation;
    let sink = scope.run.sink;
    scope.emit(|| EventKind::NodeStarted { node: path.name().to_string(), attempt }).await;
    let started = Instant::now();
    let meter = AttemptMeter::start(scope.run.graph, path.node());
    let span = GuardedSpan::new(|| tracing::info_span!("agentflow.node", node = &**path.name(), attempt));
    let mut running = span.instrument(node.start(invocation));
    let result = guarded(Pin::new(&mut running), timeout, |cx| invocation.events.poll_waited(cx), node_error).await;
    // A panic in a destructor of the node must not replace the node's result.
    catch_panic(|| drop(running));
    let ended = result.and_then(|output| node.route(output, &scope.slot));
    // The tasks of an attempt that has failed never existed.
    let spawned = invocation.outbox.close();
    match ended {
        Ok(output) => {
            scope.outbox.extend(spawned);
            node.commit();
            meter.ended(None);
            // The event is written without waiting for the reader: the next node waits before it starts.
            if let Some(fields) = invocation.events.take_changes() {
                sink.push(|| EventKind::Updated { node: path.name().to_string(), fields });
            }
            sink.push(|| EventKind::NodeEnded { node: path.name().to_string(), attempt, elapsed: started.elapsed() });
            Ok(output)
        }
        Err(source) => {
            meter.ended(Some(&source));
            Err(FailedAttempt { source, elapsed: started.elapsed() })
        }
    }
}

/// Returns the fault of an attempt as the node's error.
fn node_error(fault: AttemptFault) -> NodeError {
    match fault {
        AttemptFault::Panicked(payload) => NodeError::panicked(payload),
        AttemptFault::TimedOut { after } => AttemptTimedOut { after }.into(),
    }
}

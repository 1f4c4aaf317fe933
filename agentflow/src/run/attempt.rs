//! Attempts: a node is run once, or again until it succeeds or its policy gives up.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use tokio::{
    task::unconstrained,
    time::{Instant, sleep, sleep_until},
};
use tracing::Instrument;

use super::{
    Failure, NodeFailure, RunErrorKind,
    events::{EventKind, text_of},
    scope::Scope,
};
use crate::{
    NodeError, RetryPolicy, State,
    error::{AttemptTimedOut, quietly},
    graph::{BoxFuture, Choose, ErasedNode, ErasedParallelNode, NodeOptions},
    node::Place,
    retry::Delays,
};

/// A node with what it is run on.
pub(super) trait Attempt: Send {
    type Output: Send;

    fn start<'a>(&'a mut self, place: &'a Place<'a>) -> BoxFuture<'a, Result<Self::Output, NodeError>>;

    /// The decision that follows the node, if it is one from the state. That it cannot be taken is the node's error.
    fn decide(&self, output: Self::Output) -> Result<Self::Output, NodeError> {
        Ok(output)
    }

    /// After a failed attempt: makes the state again what it was before the first one. Says whether it is that.
    fn roll_back(&mut self) -> bool;

    /// Whether the node is a graph, whose own nodes commit what they do.
    fn is_graph(&self) -> bool;
}

/// A node that changes the state.
pub(super) struct Sequential<'s, S, C> {
    pub(super) node: &'s dyn ErasedNode<S, C>,
    pub(super) state: &'s mut S,
    /// The state as it was, where it may have to be that again.
    pub(super) before: Option<S>,
    /// Whether a node that does not change the state in place has begun to change it.
    pub(super) is_written: AtomicBool,
    /// A decision from the state.
    pub(super) router: Option<&'s dyn Choose<S>>,
    pub(super) services: &'s C,
}

impl<S: State, C: Send + Sync + 'static> Attempt for Sequential<'_, S, C> {
    /// The index of the way on.
    type Output = usize;

    fn start<'a>(&'a mut self, place: &'a Place<'a>) -> BoxFuture<'a, Result<usize, NodeError>> {
        self.node.run(self.state, self.services, place, &self.is_written)
    }

    fn decide(&self, way: usize) -> Result<usize, NodeError> {
        self.router.map_or(Ok(way), |router| chosen(router, self.state))
    }

    fn roll_back(&mut self) -> bool {
        if let Some(before) = &self.before {
            self.state.clone_from(before);
            return true;
        }
        !self.node.is_in_place() && !self.is_written.load(Ordering::Relaxed)
    }

    fn is_graph(&self) -> bool {
        self.node.outline().is_some()
    }
}

/// A node in a branch.
pub(super) struct Parallel<'s, S: State, C> {
    pub(super) node: &'s dyn ErasedParallelNode<S, C>,
    pub(super) state: &'s S,
    pub(super) services: &'s C,
    /// Where it puts what it brings: what futures return is moved by each of them.
    pub(super) update: &'s mut Option<S::Update>,
}

impl<S: State, C: Send + Sync + 'static> Attempt for Parallel<'_, S, C> {
    type Output = ();

    fn start<'a>(&'a mut self, place: &'a Place<'a>) -> BoxFuture<'a, Result<(), NodeError>> {
        self.node.run(self.state, self.services, place, self.update)
    }

    fn roll_back(&mut self) -> bool {
        true
    }

    fn is_graph(&self) -> bool {
        self.node.outline().is_some()
    }
}

/// What a router says; its panic is an error.
pub(super) fn chosen<S>(router: &dyn Choose<S>, state: &S) -> Result<usize, NodeError> {
    catch_unwind(AssertUnwindSafe(|| router.choose(state))).unwrap_or_else(|panic| Err(NodeError::panicked(panic)))
}

/// An attempt that failed.
struct Failed {
    source: NodeError,
    elapsed: Duration,
}

/// Runs the node until an attempt succeeds or its policy gives up.
pub(super) async fn attempts<A: Attempt>(
    node: &mut A,
    path: &Arc<str>,
    options: &NodeOptions,
    scope: &Scope<'_>,
    error: Option<&NodeFailure>,
) -> Result<A::Output, Box<Failure>> {
    let place = Place { scope, path, attempt: 1, error, events: scope.run.sink.writer(path) };
    match attempt(node, &place, options.timeout).await {
        Ok(output) => Ok(output),
        // In a box: most nodes succeed, and each step's future would be as large as if they did not.
        Err(failed) => Box::pin(more_attempts(node, failed, place, options)).await,
    }
}

/// Goes on after the first attempt has failed.
async fn more_attempts<A: Attempt>(
    node: &mut A,
    mut failed: Failed,
    mut place: Place<'_>,
    options: &NodeOptions,
) -> Result<A::Output, Box<Failure>> {
    let Place { scope, path, .. } = place;
    let mut delays = options.retry.as_ref().map(RetryPolicy::delays);
    loop {
        let delay = give_up(node, failed, &place, delays.as_mut()).await?;
        if !delay.is_zero() {
            sleep(delay).await;
        }
        // A node that fails because its run is to end has not failed for a reason that may pass.
        scope.check(|| Arc::clone(path))?;
        place.attempt += 1;
        place.events = scope.run.sink.writer(path);
        match attempt(node, &place, options.timeout).await {
            Ok(output) => return Ok(output),
            Err(next) => failed = next,
        }
    }
}

/// Says how long to wait before the next attempt, unless there is to be none.
async fn give_up<A: Attempt>(
    node: &mut A,
    Failed { source, elapsed }: Failed,
    place: &Place<'_>,
    delays: Option<&mut Delays<'_>>,
) -> Result<Duration, Box<Failure>> {
    let Place { scope, path, attempt, .. } = *place;
    let is_committed = node.roll_back();
    let failure = Failure::of_node(
        NodeFailure { node: Arc::clone(path), attempt, elapsed, source },
        is_committed,
        node.is_graph(),
    );
    // What ends the run from outside, or is a mistake of the graph, is no failure of this attempt.
    let delay = match &failure.kind {
        RunErrorKind::Node(failed) if is_committed => delays.and_then(|delays| delays.after(failed.source.as_error())),
        _ => None,
    };
    let error = || match &failure.kind {
        RunErrorKind::Node(failed) if failed.node == *path => text_of(&failed.source),
        kind => text_of(kind),
    };
    let failed = || EventKind::NodeFailed { node: path.to_string(), attempt, elapsed, error: error(), retry_in: delay };
    scope.run.sink.emit(failed).await;
    let Some(delay) = delay else { return Err(failure) };
    // The text is the node's error's, which may panic when it is formatted.
    quietly(|| tracing::warn!(node = &**path, attempt, retry_in = ?delay, error = %failure.kind, "attempt failed"));
    Ok(delay)
}

/// Runs the node once, with the decision that follows it.
async fn attempt<A: Attempt>(node: &mut A, place: &Place<'_>, timeout: Option<Duration>) -> Result<A::Output, Failed> {
    let Place { scope, path, attempt, .. } = *place;
    let sink = scope.run.sink;
    sink.emit(|| EventKind::NodeStarted { node: path.to_string(), attempt }).await;
    let started = Instant::now();
    let span = tracing::info_span!("agentflow.node", node = &**path, attempt);
    let mut running = node.start(place).instrument(span);
    let result = guarded(&mut running, timeout).await;
    // A destructor of the node's that panics must not take the node's own end away.
    quietly(|| drop(running));
    match result.and_then(|output| node.decide(output)) {
        Ok(output) => {
            if let Some(fields) = place.events.take_changes() {
                sink.emit(|| EventKind::Updated { node: path.to_string(), fields }).await;
            }
            sink.emit(|| EventKind::NodeEnded { node: path.to_string(), attempt, elapsed: started.elapsed() }).await;
            Ok(output)
        }
        Err(source) => Err(Failed { source, elapsed: started.elapsed() }),
    }
}

/// Polls a node until it ends or its time is over; a panic is the node's error.
async fn guarded<T>(
    node: &mut (impl Future<Output = Result<T, NodeError>> + Unpin),
    timeout: Option<Duration>,
) -> Result<T, NodeError> {
    let timed_out = |after| NodeError::from(AttemptTimedOut { after });
    if timeout == Some(Duration::ZERO) {
        return Err(timed_out(Duration::ZERO));
    }
    // Beyond what the clock can name is never.
    let deadline = timeout.and_then(|after| Instant::now().checked_add(after));
    let mut timer = None;
    poll_fn(|cx| {
        // A node that panicked is never polled again, so nobody sees what the panic left half done in it.
        match catch_unwind(AssertUnwindSafe(|| Pin::new(&mut *node).poll(cx))) {
            Ok(Poll::Ready(result)) => return Poll::Ready(result),
            Err(panic) => return Poll::Ready(Err(NodeError::panicked(panic))),
            Ok(Poll::Pending) => {}
        }
        let (Some(after), Some(deadline)) = (timeout, deadline) else {
            return Poll::Pending;
        };
        // Unconstrained, or a node that is never out of work leaves the timer no budget to be looked at.
        let timer = timer.get_or_insert_with(|| Box::pin(unconstrained(sleep_until(deadline))));
        timer.as_mut().poll(cx).map(|()| Err(timed_out(after)))
    })
    .await
}

//! The executor: walks a plan from step to step.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::task::consume_budget;

use super::{
    attempts::{SequentialAttempt, routed, run_attempts},
    commit_hook::CommitHook,
    error::{Failure, NodeFailure, RunErrorKind},
    event::EventKind,
    group::run_group,
    invocation::Arrival,
    loops::LoopTrace,
    scope::PathScope,
};
use crate::{
    error::{NodeError, catch_panic},
    graph::{
        outline::Edge,
        plan::{Plan, Step, Work},
        topology::{Next, StepId},
    },
    state::State,
};

/// The position of a run, and whether its state is committed. They are read after the run was interrupted.
///
/// All accesses are relaxed: the walk and the reader of its position run in one task, one after the other.
pub(crate) struct Progress {
    step: AtomicUsize,
    pub(super) commit: CommitMark,
}

/// Records whether a state is committed. Each state has one mark: a graph that is a node shares the mark of the graph
/// around it, as it shares the state.
///
/// All accesses are relaxed, as those of [`Progress`].
#[derive(Debug)]
pub(crate) struct CommitMark(AtomicBool);

impl CommitMark {
    /// Creates the mark of a state that no node has changed yet.
    #[inline]
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(true))
    }

    /// Records that a node may change the state from now on.
    #[inline]
    pub(crate) fn changes_begin(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Records that the state is committed: the node has succeeded, or its changes were undone.
    #[inline]
    pub(crate) fn commit(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Returns whether the state is as the last successful node left it.
    #[inline]
    pub(crate) fn is_committed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Progress {
    pub(crate) fn new(entry: StepId) -> Self {
        Self { step: AtomicUsize::new(entry.index()), commit: CommitMark::new() }
    }

    fn set(&self, step: StepId) {
        self.step.store(step.index(), Ordering::Relaxed);
    }

    /// Returns the id of the step.
    fn at(&self) -> StepId {
        StepId::new(self.step.load(Ordering::Relaxed))
    }

    pub(super) fn step<'p, S: State, C>(&self, plan: &'p Plan<S, C>) -> &'p Step<S, C> {
        plan.step(self.at())
    }
}

/// Walks a graph, or a subgraph, to END: from its entry, or from the step at which `progress`, that of the run's own graph,
/// is. The first step receives the failure that led the run to the subgraph, if it is a fallback.
pub(crate) async fn walk<S: State, C: Send + Sync + 'static>(
    plan: &Plan<S, C>,
    services: &C,
    scope: &PathScope<'_>,
    state: &mut S,
    commit: &CommitMark,
    progress: Option<&Progress>,
    mut arrival: Arrival<'_>,
) -> Result<(), Box<Failure>> {
    let mut at = progress.map_or(plan.entry, Progress::at);
    let mut trace = LoopTrace::new(plan, plan.may_loop);
    let mut on_commit = CommitHook::new(plan);
    loop {
        let step = plan.step(at);
        if let Some(progress) = progress {
            progress.set(at);
        }
        let edge = match run_step(plan, step, services, scope, state, commit, &arrival).await {
            Ok(edge) => edge,
            Err(failure) => {
                let (fallback, failure) = fall_back(plan, step, failure, &trace, scope)?;
                arrival = Arrival::by_error(failure);
                trace.visit(at);
                at = fallback;
                continue;
            }
        };
        trace.visit(at);
        commit.commit();
        let next = follow(plan, step, edge, scope, &mut arrival);
        let next_step = match next {
            Next::Step(to) => Some(plan.step(to)),
            Next::End => None,
        };
        on_commit.call(step, next_step, scope.run, state);
        match next {
            Next::Step(to) => at = to,
            // Nothing is awaited between the success of the last node and the end, so that no interrupt comes between.
            Next::End => return Ok(()),
        }
        // Yields from time to time, so that a loop of nodes that never wait does not block the thread.
        consume_budget().await;
    }
}

/// Returns the step at which the walk continues after a failure, with the failure, or the failure if there is none.
#[cold]
pub(super) fn fall_back<S: State, C>(
    plan: &Plan<S, C>,
    step: &Step<S, C>,
    mut failure: Box<Failure>,
    trace: &LoopTrace,
    scope: &PathScope<'_>,
) -> Result<(StepId, NodeFailure), Box<Failure>> {
    if let RunErrorKind::RecursionLimit { nodes, .. } = &mut failure.kind
        && nodes.is_empty()
    {
        *nodes = trace.nodes(plan, scope);
    }
    let Some(fallback) = step.on_error else { return Err(failure) };
    let failure = failure.into_recoverable()?;
    // The error belongs to the user and may panic when it is formatted.
    catch_panic(|| tracing::warn!(node = &*step.name, error = %failure, "node failed, continuing with its fallback"));
    scope.run.sink.push(|| EventKind::FallbackTaken {
        node: scope.path(&step.name).to_string(),
        to: scope.path(&plan.step(fallback).name).to_string(),
    });
    Ok((fallback, failure))
}

/// Follows an outgoing edge of the step: returns its target, and puts the value that it carries into the arrival.
#[inline]
pub(super) fn follow<S: State, C>(
    plan: &Plan<S, C>,
    step: &Step<S, C>,
    edge: usize,
    scope: &PathScope<'_>,
    arrival: &mut Arrival<'_>,
) -> Next {
    arrival.clear();
    let Some(edge) = step.edges.get(edge) else { return Next::End };
    if edge.label.is_some() && scope.run.sink.has_reader() {
        emit_route(plan, step, edge, scope);
    }
    if edge.carries.is_some() {
        *arrival = Arrival::with_input(scope.slot.take());
    }
    edge.to
}

#[cold]
fn emit_route<S: State, C>(plan: &Plan<S, C>, step: &Step<S, C>, edge: &Edge, scope: &PathScope<'_>) {
    let Edge { label, to, carries } = edge;
    scope.run.sink.push(|| EventKind::RouteTaken {
        node: scope.path(&step.name).to_string(),
        route: label.as_deref().unwrap_or_default().to_owned(),
        to: match to {
            Next::Step(to) => scope.path(&plan.step(*to).name).to_string(),
            Next::End => scope.end(),
        },
        carries: carries.map(|carried| carried.short_name()),
    });
}

/// Runs one step. Returns the index of its outgoing edge.
async fn run_step<S: State, C: Send + Sync + 'static>(
    plan: &Plan<S, C>,
    step: &Step<S, C>,
    services: &C,
    scope: &PathScope<'_>,
    state: &mut S,
    commit: &CommitMark,
    arrival: &Arrival<'_>,
) -> Result<usize, Box<Failure>> {
    match &step.work {
        Work::Node(node) => {
            let path = scope.enter(&step.name)?;
            let is_restorable = step.options.retry.is_some() || step.on_error.is_some();
            let is_copied = is_restorable && (node.mutates_state() || step.has_decision());
            let mut node = SequentialAttempt {
                node: &**node,
                before: is_copied.then(|| state.clone()),
                undoes_updates: is_restorable && !is_copied,
                state,
                commit,
                router: step.router.as_deref(),
                services,
            };
            run_attempts(&mut node, &path, &step.options, scope, arrival).await
        }
        Work::Group(group) => {
            run_group(plan, step, group, services, scope, state, commit, arrival).await?;
            let edge = step.router.as_deref().map_or(Ok(0), |router| routed(router, state, &scope.slot));
            edge.map_err(|source| failure_of(step, source, scope))
        }
        // A graph with such a node outside of a group does not compile.
        Work::Branch(_) => Ok(0),
    }
}

/// Returns the failure of a group itself: of its decision, of its items, or of all branches.
pub(super) fn failure_of<S: State, C>(
    step: &Step<S, C>,
    source: impl Into<NodeError>,
    scope: &PathScope<'_>,
) -> Box<Failure> {
    Failure::committed(RunErrorKind::Node(NodeFailure::new(scope.path(&step.name).into_owned(), source)))
}

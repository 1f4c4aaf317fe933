//! The executor: walks a plan from step to step.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::task::consume_budget;

use super::{
    attempts::{SequentialAttempt, routed, run_attempts},
    commit_hook::CommitHook,
    error::{Failure, NodeFailure, RunErrorKind},
    event::EventKind,
    group::run_group,
    loops::LoopTrace,
    scope::PathScope,
};
use crate::{
    error::catch_panic,
    graph::{
        outline::Edge,
        plan::{Plan, Step, Work},
        topology::{Next, StepId},
    },
    state::State,
};

/// The position of a walk. It is read after the walk was interrupted.
///
/// All accesses are relaxed: the walk and the reader of its position run in one task, one after the other.
pub(crate) struct Progress {
    step: AtomicUsize,
    /// `true` if the state is as the last successful node left it.
    is_committed: AtomicBool,
}

impl Progress {
    pub(crate) fn new(entry: StepId) -> Self {
        Self { step: AtomicUsize::new(entry.index()), is_committed: AtomicBool::new(true) }
    }

    fn set(&self, step: StepId, is_committed: bool) {
        self.step.store(step.index(), Ordering::Relaxed);
        self.is_committed.store(is_committed, Ordering::Relaxed);
    }

    /// Records that the state is committed: the node has succeeded, or its changes were undone.
    #[inline]
    pub(super) fn commit(&self) {
        self.is_committed.store(true, Ordering::Relaxed);
    }

    /// Returns the id of the step.
    fn at(&self) -> StepId {
        StepId::new(self.step.load(Ordering::Relaxed))
    }

    pub(super) fn step<'p, S: State, C>(&self, plan: &'p Plan<S, C>) -> &'p Step<S, C> {
        plan.step(self.at())
    }

    pub(super) fn is_committed(&self) -> bool {
        self.is_committed.load(Ordering::Relaxed)
    }
}

/// Walks a graph, or a subgraph, from the step at which `progress` is to END. The first step receives the failure that led the run to the
/// subgraph, if it is a fallback.
pub(crate) async fn walk<S: State, C: Send + Sync + 'static>(
    plan: &Plan<S, C>,
    services: &C,
    scope: &PathScope<'_>,
    state: &mut S,
    progress: &Progress,
    mut inherited: Option<&NodeFailure>,
) -> Result<(), Box<Failure>> {
    let mut at = progress.at();
    let mut error: Option<NodeFailure> = None;
    let mut trace = LoopTrace::new(plan);
    let mut on_commit = CommitHook::new(plan);
    loop {
        let step = plan.step(at);
        progress.set(at, !step.mutates_state());
        let given = error.as_ref().or(inherited);
        let edge = match run_step(plan, step, services, scope, state, progress, given).await {
            Ok(edge) => edge,
            Err(mut failure) => {
                if let RunErrorKind::RecursionLimit { nodes, .. } = &mut failure.kind
                    && nodes.is_empty()
                {
                    *nodes = trace.nodes(plan, scope);
                }
                let Some(fallback) = step.on_error else { return Err(failure) };
                let failure = failure.into_recoverable()?;
                // The error belongs to the user and may panic when it is formatted.
                catch_panic(
                    || tracing::warn!(node = &*step.name, error = %failure, "node failed, continuing with its fallback"),
                );
                error = Some(failure);
                trace.visit(at);
                at = fallback;
                let to = &plan.step(at).name;
                let taken = || EventKind::FallbackTaken {
                    node: scope.path(&step.name).to_string(),
                    to: scope.path(to).to_string(),
                };
                scope.run.sink.push(taken);
                continue;
            }
        };
        error = None;
        inherited = None;
        trace.visit(at);
        progress.commit();
        let Some(Edge { label, to }) = step.edges.get(edge) else {
            return Ok(());
        };
        if let Some(route) = label {
            scope.run.sink.push(|| EventKind::RouteTaken {
                node: scope.path(&step.name).to_string(),
                route: route.to_string(),
                to: match to {
                    Next::Step(to) => scope.path(&plan.step(*to).name).to_string(),
                    Next::End => scope.end(),
                },
            });
        }
        let next = match to {
            Next::Step(to) => Some(plan.step(*to)),
            Next::End => None,
        };
        on_commit.call(step, next, scope.run, state);
        match to {
            Next::Step(to) => at = *to,
            // Nothing is awaited between the success of the last node and the end, so that no interrupt comes between.
            Next::End => return Ok(()),
        }
        // Yields from time to time, so that a loop of nodes that never wait does not block the thread.
        consume_budget().await;
    }
}

/// Runs one step. Returns the index of its outgoing edge.
async fn run_step<S: State, C: Send + Sync + 'static>(
    plan: &Plan<S, C>,
    step: &Step<S, C>,
    services: &C,
    scope: &PathScope<'_>,
    state: &mut S,
    progress: &Progress,
    error: Option<&NodeFailure>,
) -> Result<usize, Box<Failure>> {
    match &step.work {
        Work::Node(node) => {
            let path = scope.enter(&step.name)?;
            let may_be_restored = step.options.retry.is_some() || step.on_error.is_some();
            let may_be_changed = node.mutates_state() || step.has_decision();
            let before = (may_be_restored && may_be_changed).then(|| state.clone());
            let mut node = SequentialAttempt {
                node: &**node,
                state,
                before,
                is_written: AtomicBool::new(false),
                router: step.router.as_deref(),
                services,
                progress,
            };
            run_attempts(&mut node, &path, &step.options, scope, error).await
        }
        Work::Group(branches) => {
            run_group(plan, branches, services, scope, state, error).await?;
            let edge = step.router.as_deref().map_or(Ok(0), |router| routed(router, state));
            edge.map_err(|source| {
                Failure::committed(RunErrorKind::Node(NodeFailure::new(scope.path(&step.name).into_owned(), source)))
            })
        }
        // A graph with such a node outside of a group does not compile.
        Work::Branch(_) => Ok(0),
    }
}

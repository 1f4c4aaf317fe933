//! The executor: walks a plan from step to step.

use tokio::task::consume_budget;

use super::{
    attempts::{SequentialAttempt, routed, run_attempts},
    commit_hook::CommitHook,
    commit_mark::CommitMark,
    error::{Failure, RunErrorKind},
    group::run_group,
    invocation::Arrival,
    loops::LoopTrace,
    progress::Progress,
    recorder::{ResumeSlot, Resumption},
    recording::{record, step_named},
    scope::PathScope,
    transition::{fall_back, follow},
};
use crate::{
    graph::{
        plan::{Plan, Step, Work},
        topology::{Next, StepId},
    },
    panics::catch_panic,
    state::State,
};

/// Walks a graph, or a subgraph, to END: from its entry, or from the step at which `progress`, that of the run's own graph,
/// is. The first step receives the failure that led the run to the subgraph, if it is a fallback.
pub(crate) async fn walk<S: State, C: Send + Sync + 'static>(
    plan: &Plan<S, C>,
    services: &C,
    scope: &PathScope<'_>,
    state: &mut S,
    commit: &CommitMark,
    progress: Option<&Progress>,
    arrival: Arrival<'_>,
) -> Result<(), Box<Failure>> {
    let (mut at, mut arrival) = begin(plan, scope, progress, arrival)?;
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
                record(plan, step, Next::Step(fallback), scope, &arrival, state).await?;
                at = fallback;
                continue;
            }
        };
        trace.visit(at);
        commit.commit();
        // A recorded run stores the tasks together with the step.
        if progress.is_some() && scope.recorder().is_none() {
            scope.commit_outbox();
        }
        let next = follow(plan, step, edge, scope, &mut arrival);
        let next_step = match next {
            Next::Step(to) => Some(plan.step(to)),
            Next::End => None,
        };
        // A run that is not recorded awaits nothing here: no interrupt comes between its last node and its end.
        let recorded = record(plan, step, next, scope, &arrival, state).await;
        if recorded.as_ref().map_or_else(|failure| failure.kind.is_after_commit(), |()| true) {
            on_commit.call(step, next_step, scope.run, state);
        }
        recorded?;
        match next {
            Next::Step(to) => at = to,
            Next::End => return Ok(()),
        }
        // The walk yields from time to time, so that a loop of nodes that never wait does not block the thread.
        consume_budget().await;
    }
}

/// Returns the step at which a walk begins, and its arrival: the entry, or the step at which the run goes on.
#[inline]
fn begin<'a, S: State, C>(
    plan: &Plan<S, C>,
    scope: &PathScope<'_>,
    progress: Option<&Progress>,
    arrival: Arrival<'a>,
) -> Result<(StepId, Arrival<'a>), Box<Failure>> {
    let entry = progress.map_or(plan.entry, Progress::at);
    // Only a recorded path has positions. The others begin anew.
    match scope.recorder().and(scope.run.resume) {
        None => Ok((entry, arrival)),
        Some(resume) => resumed(plan, scope, resume, entry, arrival),
    }
}

#[cold]
fn resumed<'a, S: State, C>(
    plan: &Plan<S, C>,
    scope: &PathScope<'_>,
    resume: &ResumeSlot,
    entry: StepId,
    arrival: Arrival<'a>,
) -> Result<(StepId, Arrival<'a>), Box<Failure>> {
    let Some((name, innermost)) = resume.take() else { return Ok((entry, arrival)) };
    let Some(at) = step_named(plan, &name) else {
        let node = scope.path(&name).into_owned();
        return Err(Failure::committed(RunErrorKind::UnknownNode { node, suggestion: None }));
    };
    match innermost {
        // The arrival of a graph is that of the first step inside it.
        None => Ok((at, Arrival::default())),
        Some(Resumption { error, input, answer, .. }) => Ok((at, Arrival::resumed(error, input, answer))),
    }
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
            // A question commits nothing of the node. It comes before the decision.
            let may_be_undone = is_restorable || step.asks;
            let is_copied = (may_be_undone && node.mutates_state()) || (is_restorable && step.has_decision());
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
            // A fallback has the state as it was before the group. An interrupt comes before the merge, or not at all.
            let before = step.on_error.is_some().then(|| state.clone());
            let spawned = scope.outbox.len();
            let joined = run_group(plan, step, group, services, scope, state, commit, arrival).await;
            let ended = joined.and_then(|()| {
                let edge = step.router.as_deref().map_or(Ok(0), |router| routed(router, state, &scope.slot));
                edge.map_err(|source| scope.failure(&step.name, source))
            });
            ended.map_err(|mut failure| {
                scope.outbox.truncate(spawned);
                if let Some(before) = before {
                    // The destructor of the state is user code and may panic.
                    catch_panic(|| *state = before);
                    failure.is_committed = true;
                    commit.commit();
                }
                failure
            })
        }
        // A graph with such a node outside of a group does not compile.
        Work::Branch(_) => Ok(0),
    }
}

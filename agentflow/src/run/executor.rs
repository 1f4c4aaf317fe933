//! The executor: walks a plan from step to step.

use tokio::task::consume_budget;

use super::{
    attempts::{SequentialAttempt, routed, run_attempts},
    commit_hook::CommitHook,
    commit_mark::CommitMark,
    error::Failure,
    group::run_group,
    invocation::Arrival,
    loops::LoopTrace,
    progress::Progress,
    scope::PathScope,
    transition::{fall_back, follow},
};
use crate::{
    graph::{
        plan::{Plan, Step, Work},
        topology::Next,
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
        // The walk yields from time to time, so that a loop of nodes that never wait does not block the thread.
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
            // A fallback has the state as it was before the group. An interrupt comes before the merge, or not at all.
            let before = step.on_error.is_some().then(|| state.clone());
            let joined = run_group(plan, step, group, services, scope, state, commit, arrival).await;
            let ended = joined.and_then(|()| {
                let edge = step.router.as_deref().map_or(Ok(0), |router| routed(router, state, &scope.slot));
                edge.map_err(|source| scope.failure(&step.name, source))
            });
            ended.map_err(|mut failure| {
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

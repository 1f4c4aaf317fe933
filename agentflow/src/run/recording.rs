//! Recording: the walk's part in it, which turns steps of a plan into names.

use std::sync::Arc;

use super::{
    error::Failure,
    invocation::Arrival,
    recorder::{EndedStep, NextStep, Recorder},
    scope::PathScope,
};
use crate::{
    graph::{
        plan::{Plan, Step, Work},
        topology::{Next, StepId},
    },
    state::State,
};

/// Records that a step has ended, if the path is recorded.
///
/// The end of a graph inside another one is no position of its own: the walk around it records its next step.
#[inline]
pub(super) async fn record<S: State, C>(
    plan: &Plan<S, C>,
    step: &Step<S, C>,
    next: Next,
    scope: &PathScope<'_>,
    arrival: &Arrival<'_>,
    state: &S,
) -> Result<(), Box<Failure>> {
    match scope.recorder() {
        Some(recorder) if next != Next::End || !scope.is_nested() => {
            record_with(recorder, plan, step, next, scope, arrival, state).await
        }
        _ => Ok(()),
    }
}

#[allow(clippy::too_many_arguments, reason = "a step is recorded with all that its path has")]
async fn record_with<S: State, C>(
    recorder: &dyn Recorder,
    plan: &Plan<S, C>,
    step: &Step<S, C>,
    next: Next,
    scope: &PathScope<'_>,
    arrival: &Arrival<'_>,
    state: &S,
) -> Result<(), Box<Failure>> {
    let next = match next {
        Next::End => None,
        Next::Step(next) => {
            let next = plan.step(next);
            let mut path = scope.graphs();
            path.push(Arc::clone(&next.name));
            Some(NextStep {
                path,
                nodes: nodes_of(plan, next).map(|node| scope.path(&node.name).into_owned()).collect(),
                error: arrival.own_error(),
                input: arrival.own_input().map(|input| (input, next.input)),
            })
        }
    };
    let node = scope.path(&step.name).into_owned();
    let tasks = scope.outbox.take();
    // Boxed by the recorder: the future of a run without a thread is no larger for this.
    let written = recorder.record(EndedStep { node, next, state, steps: scope.steps(), tasks }).await;
    if let Some(resume) = scope.run.resume {
        resume.reach(scope.run.id, scope.steps() as u64 + 1);
    }
    written.map_err(Failure::committed)
}

/// Returns the nodes that run when the step does: itself, or the first one of each branch of a group.
fn nodes_of<'p, S: State, C>(
    plan: &'p Plan<S, C>,
    step: &'p Step<S, C>,
) -> Box<dyn Iterator<Item = &'p Step<S, C>> + Send + 'p> {
    match &step.work {
        Work::Group(group) => {
            let firsts = group.branches.iter().filter_map(|branch| branch.steps.first());
            Box::new(firsts.flat_map(|first| nodes_of(plan, plan.step(*first))))
        }
        Work::Node(_) | Work::Branch(_) => Box::new(std::iter::once(step)),
    }
}

/// Returns the step of this name.
pub(super) fn step_named<S: State, C>(plan: &Plan<S, C>, name: &str) -> Option<StepId> {
    plan.steps.iter().position(|step| &*step.name == name).map(StepId::new)
}

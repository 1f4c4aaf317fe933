//! Transitions: a path goes from a step to the next one along an edge, or after a failure to a fallback.

use super::{
    error::{Failure, NodeFailure, RunErrorKind},
    event::EventKind,
    invocation::Arrival,
    loops::LoopTrace,
    scope::PathScope,
};
use crate::{
    graph::{
        outline::Edge,
        plan::{Plan, Step, Work},
        topology::{Next, StepId},
    },
    panics::catch_panic,
    state::State,
};

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
    if let Work::Group(_) = &step.work {
        // A visit counts even if the group fails. Otherwise two groups could recover by each other for ever.
        scope.join([1]);
    }
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

/// Writes the event of a decision that took this edge.
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

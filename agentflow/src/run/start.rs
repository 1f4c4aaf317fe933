//! The step at which a run starts.

use std::sync::Arc;

use super::error::RunErrorKind;
use crate::{
    graph::{
        plan::{Plan, Work},
        topology::StepId,
    },
    state::State,
    suggest,
};

/// Returns the step at which a run starts: the one with this name, or the graph's entry.
pub(super) fn start_step<S: State, C>(plan: &Plan<S, C>, node: Option<&str>) -> Result<StepId, RunErrorKind> {
    let Some(node) = node else { return Ok(plan.entry) };
    let Some(index) = plan.steps.iter().position(|step| &*step.name == node) else {
        return Err(RunErrorKind::UnknownNode { node: node.into(), suggestion: suggestion(plan, node) });
    };
    let step = StepId::new(index);
    match outermost_group(plan, step) {
        None => Ok(step),
        Some(group) => Err(RunErrorKind::InsideGroup {
            node: Arc::clone(&plan.step(step).name),
            group: Arc::clone(&plan.step(group).name),
        }),
    }
}

/// Returns the group that the step is in, and that is itself in no other one.
fn outermost_group<S: State, C>(plan: &Plan<S, C>, step: StepId) -> Option<StepId> {
    let group = (0..plan.steps.len()).map(StepId::new).find(|group| match &plan.step(*group).work {
        Work::Group(group) => group.branches.iter().any(|branch| branch.steps.contains(&step)),
        Work::Node(_) | Work::Branch(_) => false,
    })?;
    Some(outermost_group(plan, group).unwrap_or(group))
}

/// Returns the step that may have been meant. A node of a nested graph is named `GRAPH/NODE` in events and errors; a run
/// can start at the graph.
fn suggestion<S: State, C>(plan: &Plan<S, C>, node: &str) -> Option<Arc<str>> {
    let starts = (0..plan.steps.len()).map(StepId::new).filter(|step| outermost_group(plan, *step).is_none());
    let names: Vec<_> = starts.map(|step| &*plan.step(step).name).collect();
    let graph = node.split_once('/').and_then(|(graph, _)| names.iter().find(|name| **name == graph).copied());
    graph.or_else(|| suggest::closest(node, &names)).map(Arc::from)
}

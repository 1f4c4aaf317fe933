//! [`LoopTrace`]: the latest visits of a walk's steps, for the error of the recursion limit.

use std::sync::Arc;

use super::scope::PathScope;
use crate::{
    graph::{
        plan::{Plan, Work},
        topology::StepId,
    },
    state::State,
};

/// The two latest visits of each step of a plan. The memory does not grow with the length of the walk, and a plan
/// without loops takes none.
///
/// Every graph inside another one has a trace of its own, for each of its executions. An attempt that failed therefore
/// leaves no trace.
pub(super) struct LoopTrace {
    visits: Option<Box<[Visits]>>,
    /// The number of visits.
    clock: u64,
}

/// The times of the latest visit of a step and of the one before it; zero if there was none.
#[derive(Clone, Copy, Default)]
struct Visits {
    latest: u64,
    previous: u64,
}

impl LoopTrace {
    /// Creates the trace of a walk that may visit a step of the plan twice, or not.
    pub(super) fn new<S: State, C>(plan: &Plan<S, C>, may_loop: bool) -> Self {
        let visits = may_loop.then(|| vec![Visits::default(); plan.steps.len()].into_boxed_slice());
        Self { visits, clock: 0 }
    }

    /// Records a visit of the step.
    #[inline]
    pub(super) fn visit(&mut self, step: StepId) {
        if let Some(visits) = &mut self.visits {
            self.clock += 1;
            let Visits { latest, previous } = &mut visits[step.index()];
            *previous = std::mem::replace(latest, self.clock);
        }
    }

    /// Returns the nodes of the latest loop of the walk, in the order of their visits; none if no step was visited twice.
    #[cold]
    pub(super) fn nodes<S: State, C>(&self, plan: &Plan<S, C>, scope: &PathScope<'_>) -> Vec<Arc<str>> {
        let Some(visits) = &self.visits else { return Vec::new() };
        // The walk may have left the loop: the loop ends at the latest step that was visited twice.
        let repeated = visits.iter().filter(|visits| visits.previous > 0);
        let Some(end) = repeated.max_by_key(|visits| visits.latest) else { return Vec::new() };
        let is_in_loop = |index: &usize| (end.previous + 1..=end.latest).contains(&visits[*index].latest);
        let mut in_loop: Vec<_> = (0..visits.len()).filter(is_in_loop).collect();
        in_loop.sort_unstable_by_key(|index| visits[*index].latest);
        let mut names = Vec::new();
        for index in in_loop {
            add_names(plan, scope, StepId::new(index), &mut names);
        }
        names
    }
}

/// Adds the name of a node, or the names of the nodes of a group.
fn add_names<S: State, C>(plan: &Plan<S, C>, scope: &PathScope<'_>, step: StepId, names: &mut Vec<Arc<str>>) {
    let step = plan.step(step);
    match &step.work {
        Work::Group(group) => {
            let steps = group.branches.iter().flat_map(|branch| &branch.steps);
            steps.for_each(|step| add_names(plan, scope, *step, names));
        }
        Work::Node(_) | Work::Branch(_) => names.push(scope.path(&step.name).into_owned()),
    }
}

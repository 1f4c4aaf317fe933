//! [`Progress`]: the position of a run, which outlives its interruption.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::{
    commit_mark::CommitMark,
    last_node::LastNode,
    recorder::{Recorder, ResumeSlot, Resumption},
};
use crate::{
    graph::{
        plan::{Plan, Step, Work},
        topology::StepId,
    },
    state::State,
};

/// The position of a run, and whether its state is committed. They are read after the run was interrupted.
///
/// All accesses are relaxed: the walk and the reader of its position run in one task, one after the other.
pub(crate) struct Progress {
    step: AtomicUsize,
    pub(super) commit: CommitMark,
    /// Records the steps of a run on a thread.
    pub(super) recorder: Option<Arc<dyn Recorder>>,
    /// The step at which the run goes on, if it does not begin at `step`.
    pub(super) resume: Option<ResumeSlot>,
}

impl Progress {
    pub(crate) fn new(entry: StepId) -> Self {
        Self { step: AtomicUsize::new(entry.index()), commit: CommitMark::new(), recorder: None, resume: None }
    }

    /// Creates the position of a run that is recorded, and that goes on at a step.
    pub(crate) fn recorded(entry: StepId, recorder: Arc<dyn Recorder>, resumption: Resumption) -> Self {
        Self { recorder: Some(recorder), resume: Some(ResumeSlot::new(resumption)), ..Self::new(entry) }
    }

    pub(super) fn set(&self, step: StepId) {
        self.step.store(step.index(), Ordering::Relaxed);
    }

    /// Returns the id of the step.
    pub(super) fn at(&self) -> StepId {
        StepId::new(self.step.load(Ordering::Relaxed))
    }

    fn step<'p, S: State, C>(&self, plan: &'p Plan<S, C>) -> &'p Step<S, C> {
        plan.step(self.at())
    }

    /// Returns the innermost node that the run was at: `last`, if it is in this step, or else the step's first node.
    pub(super) fn innermost_node<S: State, C>(&self, plan: &Plan<S, C>, last: &LastNode) -> Arc<str> {
        let step = self.step(plan);
        let last = last.get().filter(|last| contains(plan, step, last));
        last.unwrap_or_else(|| Arc::clone(&plan.first_node(step).name))
    }
}

/// Returns whether the node belongs to the step: it is the step, also for an item of an `each`, or is in its group or graph.
fn contains<S: State, C>(plan: &Plan<S, C>, step: &Step<S, C>, node: &str) -> bool {
    match &step.work {
        Work::Group(group) => {
            group.branches.iter().flat_map(|branch| &branch.steps).any(|step| contains(plan, plan.step(*step), node))
        }
        Work::Node(_) | Work::Branch(_) => {
            node.strip_prefix(&*step.name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '[']))
        }
    }
}

//! [`Recorder`]: records the steps of a run on a thread.

use std::{collections::VecDeque, fmt, sync::Arc};

use futures_util::future::BoxFuture;

use super::{
    error::{NodeFailure, RunErrorKind},
    step_id::StepId,
};
use crate::{
    carried::{Carried, Input, InputType},
    question::Answer,
    run_id::RunId,
    store::NewTask,
    sync::Mutex,
};

/// Records the steps of a run, each before the next one begins. A run without a thread has none.
pub(crate) trait Recorder: fmt::Debug + Send + Sync {
    /// Records that a step has ended. An error ends the run, whose state is committed.
    ///
    /// The future may be dropped at any await. The recorder finds out later if the step was recorded.
    fn record<'a>(&'a self, step: EndedStep<'a>) -> BoxFuture<'a, Result<(), RunErrorKind>>;

    /// Returns the number of owners that the run has had, from 1.
    fn epoch(&self) -> u64;

    /// Begins a group: records name its step.
    fn begin_group(&self, step: StepId);

    /// Returns the items of the `each` at which the run goes on, if an earlier run has recorded them.
    fn items(&self, input: InputType) -> Result<Option<Vec<Input>>, RunErrorKind>;

    /// Records the items of an `each`, before the first branch.
    fn record_items(&self, items: &[Input], input: InputType) -> Result<(), RunErrorKind>;

    /// Returns what an earlier run has recorded of a branch of the group at which the run goes on.
    fn branch(&self, key: &str, input: &dyn Fn(&str) -> InputType) -> Result<Option<BranchRecord>, RunErrorKind>;

    /// Records what a branch of a group has done. It is written behind the branch; what is lost runs again.
    fn record_branch(&self, key: &str, record: BranchRecord, input: Option<InputType>) -> Result<(), RunErrorKind>;

    /// Forgets what the branches of the present group have done: the join would fail again.
    fn discard_branches(&self);

    /// Returns whether an answer has begun the run.
    fn answers(&self) -> bool;

    /// Returns whether there is an answer for this node.
    fn is_answered(&self, node: &str) -> bool;

    /// Takes the answer for a node of a branch.
    fn take_answer(&self, node: &str) -> Option<Answer>;
}

/// The progress of a branch of a group.
#[derive(Debug)]
pub(crate) struct BranchRecord {
    /// The updates of the branch so far, with the names of their nodes.
    pub(crate) updates: Vec<(Arc<str>, Arc<Carried>)>,
    /// The step of the branch that runs next; `None` at the join.
    pub(crate) next: Option<Arc<str>>,
    /// The value that the edge to it carries.
    pub(crate) input: Option<Input>,
    /// The failure that leads to it.
    pub(crate) error: Option<NodeFailure>,
    /// The number of node executions.
    pub(crate) taken: usize,
    /// The durable tasks of the branch's nodes.
    pub(crate) spawned: Vec<NewTask>,
    /// The nodes of the step that have asked and wait for an answer.
    pub(crate) asked: Vec<Arc<str>>,
}

/// A step that has ended: its node succeeded, or its failure leads to a fallback.
pub(crate) struct EndedStep<'a> {
    /// The name of the node or the group.
    pub(crate) node: Arc<str>,
    /// The step that follows, or `None` at the end of the run.
    pub(crate) next: Option<NextStep<'a>>,
    /// The state after the step.
    pub(crate) state: &'a Carried,
    /// The number of steps that the run has made.
    pub(crate) steps: usize,
    /// The durable tasks that the step has spawned.
    pub(crate) tasks: Vec<NewTask>,
}

/// The step that follows another one.
pub(crate) struct NextStep<'a> {
    /// The names of the steps that it is in, from the graph of the run on, and its own name.
    pub(crate) path: Vec<Arc<str>>,
    /// The names of the nodes that run next, as events have them: one, or the first one of each branch of a group.
    pub(crate) nodes: Vec<Arc<str>>,
    /// The failure that leads to it.
    pub(crate) error: Option<&'a NodeFailure>,
    /// The value that the edge to it carries.
    pub(crate) input: Option<(&'a Input, InputType)>,
}

/// The step at which a run goes on, and what the step receives.
#[derive(Debug, Default)]
pub(crate) struct Resumption {
    /// The names of the steps that it is in, and its own name, as in [`NextStep::path`]; empty at the graph's entry.
    pub(crate) path: VecDeque<Arc<str>>,
    pub(crate) error: Option<NodeFailure>,
    pub(crate) input: Option<Input>,
    /// The answer to the question of the step's node.
    pub(crate) answer: Option<Answer>,
    /// The number of steps that the run has made before.
    pub(crate) steps: usize,
    /// The run that first reached the step, and its number there.
    pub(crate) origin: Option<(RunId, u64)>,
}

/// The resumption of a run, until the walks have taken their parts of it.
#[derive(Debug)]
pub(crate) struct ResumeSlot {
    open: Mutex<Option<Resumption>>,
    /// The number of steps that the run has made before.
    pub(super) steps: usize,
    /// The identity of the present step, as its position has it.
    origin: Mutex<Option<(RunId, u64)>>,
}

impl ResumeSlot {
    pub(crate) fn new(resumption: Resumption) -> Self {
        // The graphs that the step is in were counted when the run entered them, and are counted once more.
        let entered = resumption.path.len().saturating_sub(1);
        let (steps, origin) = (resumption.steps.saturating_sub(entered), resumption.origin);
        Self { open: Mutex::new(Some(resumption)), steps, origin: Mutex::new(origin) }
    }

    /// Takes the name of the step at which the next walk begins, and all that the step receives if it is the innermost.
    pub(super) fn take(&self) -> Option<(Arc<str>, Option<Resumption>)> {
        let mut open = self.open.lock();
        let resumption = open.as_mut()?;
        let name = resumption.path.pop_front();
        let is_innermost = resumption.path.is_empty();
        let innermost = if is_innermost { open.take() } else { None };
        Some((name?, innermost))
    }

    /// Returns the identity of the present step: the run that first reached it, and its number there.
    pub(super) fn origin(&self) -> Option<(RunId, u64)> {
        *self.origin.lock()
    }

    /// Records that the run has reached its next step.
    pub(super) fn reach(&self, run: RunId, number: u64) {
        *self.origin.lock() = Some((run, number));
    }
}

//! [`Arrival`], [`Invocation`] and [`OnlyAttempt`]: the beginning of a step, and one attempt of its node.

use crate::{
    carried::{Carried, Input},
    question::Answer,
    store::NewTask,
    task::AttemptOutbox,
};

use super::{
    error::NodeFailure,
    event_channel::EventWriter,
    path_name::{NodeOnPath, NodePath},
    scope::PathScope,
};

/// The arrival of a path at a step, with the failure of the step before, with the value of the edge, or with an
/// answer.
///
/// It lives in the walk, and everything below borrows it: a step whose data grows costs every run.
#[derive(Debug, Default)]
pub(crate) struct Arrival<'a> {
    error: Option<NodeFailure>,
    /// The failure that led the run to the graph or the group of the path, for its first step.
    inherited: Option<&'a Arrival<'a>>,
    input: Option<Input>,
    /// The answer to the question that the node asked. Boxed, because most steps have none.
    answer: Option<Box<Answer>>,
    /// Set if there is a failure or a value, so that most steps look no further.
    is_some: bool,
}

impl<'a> Arrival<'a> {
    /// Creates the arrival at a fallback, with the failure of the step.
    pub(crate) fn by_error(error: NodeFailure) -> Self {
        Self { error: Some(error), is_some: true, ..Self::default() }
    }

    /// Creates the arrival along an edge that carries a value.
    pub(crate) fn with_input(input: Option<Input>) -> Self {
        Self { input, is_some: true, ..Self::default() }
    }

    /// Creates the arrival at the first step of a path, with the failure or the value of the graph or group around it.
    #[inline]
    pub(crate) fn inherited(outer: &'a Self) -> Self {
        Self { inherited: Some(outer), is_some: outer.is_some, ..Self::default() }
    }

    /// Creates the arrival at the branch of an `each`, with an item and the failure of the `each` itself.
    #[inline]
    pub(crate) fn of_item(outer: &'a Self, item: Input) -> Self {
        Self { inherited: Some(outer), input: Some(item), is_some: true, ..Self::default() }
    }

    /// Creates the arrival at the step at which a run goes on.
    pub(crate) fn resumed(error: Option<NodeFailure>, input: Option<Input>, answer: Option<Answer>) -> Self {
        let answer = answer.map(Box::new);
        let is_some = error.is_some() || input.is_some() || answer.is_some();
        Self { error, input, answer, is_some, inherited: None }
    }

    /// Returns the failure of the step before, and not one that led to the graph around the step.
    pub(crate) fn own_error(&self) -> Option<&NodeFailure> {
        self.error.as_ref()
    }

    /// Returns the value of the edge to the step, and not one that led to the graph around the step.
    pub(crate) fn own_input(&self) -> Option<&Input> {
        self.input.as_ref()
    }

    /// Creates the arrival at a node that asked, with the answer, and with all that the path brought to it.
    pub(crate) fn answered(outer: &'a Self, answer: Answer) -> Self {
        Self { inherited: Some(outer), answer: Some(Box::new(answer)), is_some: true, ..Self::default() }
    }

    /// Forgets what the step before has received.
    #[inline]
    pub(crate) fn clear(&mut self) {
        if self.is_some {
            *self = Self::default();
        }
    }

    /// Returns the failure that led the path here.
    pub(crate) fn error(&self) -> Option<&NodeFailure> {
        self.error.as_ref().or_else(|| self.inherited.and_then(Self::error))
    }

    /// Returns the answer. The steps of a graph or a group have none from around it: an answer is that of one node.
    pub(crate) fn answer(&self) -> Option<&Answer> {
        self.answer.as_deref()
    }

    /// Returns the value of the edge.
    #[inline]
    pub(crate) fn input(&self) -> Option<&Carried> {
        if !self.is_some {
            return None;
        }
        match &self.input {
            Some(input) => input.value(),
            None => self.inherited.and_then(Self::input),
        }
    }
}

/// One attempt of one node in a run.
///
/// The contexts of nodes borrow it, because every future that a value passes through copies it.
#[derive(Debug)]
pub(crate) struct Invocation<'a> {
    pub(crate) scope: &'a PathScope<'a>,
    /// The node's name, prefixed with the names of the subgraphs that it is in.
    pub(crate) path: &'a NodePath<'a>,
    pub(crate) attempt: u32,
    /// The failure that led the run to this node by another node's `on_error`, or the value of the edge to it.
    pub(crate) arrival: &'a Arrival<'a>,
    pub(crate) events: EventWriter,
    /// The durable tasks that the attempt has spawned.
    pub(crate) outbox: AttemptOutbox,
    /// Set if an update of the node has to be undone if a reducer panics, because the node may run again, or has a fallback.
    pub(crate) undoes_updates: bool,
}

impl<'a> Invocation<'a> {
    /// Creates the invocation of a node that runs once, in a run without a reader.
    #[inline]
    pub(crate) fn only(scope: &'a PathScope<'a>, path: &'a NodePath<'a>, arrival: &'a Arrival<'a>) -> Self {
        let (events, outbox) = (EventWriter::default(), AttemptOutbox::default());
        Self { scope, path, attempt: 1, arrival, events, outbox, undoes_updates: false }
    }
}

/// The only attempt of a node in a run without a reader. Its invocation is made inside of the node's future.
pub(crate) struct OnlyAttempt<'a> {
    pub(crate) scope: &'a PathScope<'a>,
    pub(crate) node: NodeOnPath<'a>,
    /// The arrival at the group that the node is in.
    pub(crate) arrival: &'a Arrival<'a>,
    /// The item for which the node runs.
    pub(crate) item: Option<Input>,
}
impl Invocation<'_> {
    /// Adds the durable tasks of a path inside the node to those of the attempt.
    pub(crate) fn adopt(&self, spawned: Vec<NewTask>) {
        if let (false, Some(after)) = (spawned.is_empty(), self.scope.run.manager.durable_sink()) {
            self.outbox.open(after).extend(spawned);
        }
    }
}

//! [`Input`]: the beginning of a run on a thread.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use super::{codec::Values, error::ThreadError};
use crate::{
    state::{State, Update},
    store::{CheckpointId, QuestionId, Stored},
};

/// The beginning of a run on a thread: its place, and the changes that it merges before.
///
/// An update begins a run at the graph's start; so do all updates by themselves, since [`Thread::invoke`](super::Thread::invoke)
/// takes both.
#[derive(Clone)]
#[must_use = "an input does nothing until a run begins with it"]
pub struct Input<S: State> {
    pub(super) kind: InputKind,
    /// Merged into the state before the run begins.
    pub(super) update: Option<S::Update>,
    /// An update in JSON, which is read when the run is accepted.
    pub(super) update_json: Option<Arc<RawValue>>,
    pub(super) checkpoint: Option<CheckpointId>,
}

/// The place at which a run begins.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum InputKind {
    /// The graph's start.
    Start,
    /// The position of the checkpoint.
    Resume,
    /// The nodes that asked.
    Answers(Vec<(QuestionId, Arc<RawValue>)>),
    /// A node, with the value that it takes as input.
    Goto { node: Arc<str>, input: Option<Arc<RawValue>> },
}

impl<S: State> Input<S> {
    fn new(kind: InputKind) -> Self {
        Self { kind, update: None, update_json: None, checkpoint: None }
    }

    /// Begins at the graph's start, with the update merged into the state. Open questions are dropped.
    pub fn update(update: S::Update) -> Self {
        Self { update: Some(update), ..Self::new(InputKind::Start) }
    }

    /// Begins at the graph's start, with an update in JSON: an object with some of the state's fields.
    pub fn update_json(update: &Value) -> Self {
        Self { update_json: Some(raw(update).into()), ..Self::new(InputKind::Start) }
    }

    /// Goes on where the thread is: at a node that failed, was cancelled, or was stopped at. A node that asked runs again
    /// without an answer.
    pub fn resume() -> Self {
        Self::new(InputKind::Resume)
    }

    /// Goes on at the nodes that asked these questions, with the answers as JSON. Other questions stay open.
    pub fn answers(answers: impl IntoIterator<Item = (QuestionId, Value)>) -> Self {
        let answers = answers.into_iter().map(|(question, answer)| (question, raw(&answer).into())).collect();
        Self::new(InputKind::Answers(answers))
    }

    /// Begins at a node, which is in no group. Open questions are dropped.
    pub fn goto(node: impl Into<Arc<str>>) -> Self {
        Self::new(InputKind::Goto { node: node.into(), input: None })
    }

    /// Begins at a node that takes an `input`, with this value as JSON.
    pub fn goto_with(node: impl Into<Arc<str>>, input: &Value) -> Self {
        Self::new(InputKind::Goto { node: node.into(), input: Some(raw(input).into()) })
    }

    /// Begins at an older checkpoint, or at the newest one. An older one begins a new branch of the thread.
    pub fn at(self, checkpoint: CheckpointId) -> Self {
        Self { checkpoint: Some(checkpoint), ..self }
    }

    /// Merges an update into the state before the run begins: for answers and [`goto`](Self::goto).
    pub fn with_update(self, update: S::Update) -> Self {
        Self { update: Some(update), ..self }
    }

    /// Merges an update in JSON into the state before the run begins.
    pub fn with_update_json(self, update: &Value) -> Self {
        Self { update_json: Some(raw(update).into()), ..self }
    }

    /// Returns whether the run goes on where the thread is.
    pub(super) fn is_resume(&self) -> bool {
        matches!(self.kind, InputKind::Resume)
    }

    /// Reads the update, if it is JSON.
    pub(super) fn read(self, values: &Values<S>) -> Result<Self, ThreadError> {
        let Some(json) = &self.update_json else { return Ok(self) };
        let update = values.load_update(json.get().as_bytes())?;
        Ok(Self { update: Some(update), update_json: None, ..self })
    }

    /// Returns the form that a store holds.
    pub(super) fn stored(&self, values: &Values<S>) -> Result<Stored, ThreadError> {
        if values.are_kept() {
            return Ok(Stored::Shared(Arc::new(self.clone())));
        }
        let update = match &self.update {
            None => None,
            Some(update) => values.update_json(update)?.and_then(|json| serde_json::from_slice(&json).ok()),
        };
        let json = InputJson { kind: self.kind.clone(), update, checkpoint: self.checkpoint };
        let json = serde_json::to_vec(&json);
        json.map(Stored::from).map_err(|error| ThreadError::Unwritable { error: error.to_string() })
    }

    /// Reads the form that a store holds.
    pub(super) fn load(stored: &Stored, values: &Values<S>) -> Result<Self, ThreadError> {
        match stored {
            Stored::Shared(value) => value.downcast_ref::<Self>().cloned().ok_or(ThreadError::NotSerializable),
            Stored::Json(json) => {
                let read: Result<InputJson, _> = serde_json::from_slice(json);
                let InputJson { kind, update, checkpoint } =
                    read.map_err(|error| ThreadError::Unreadable { error: format!("the input: {error}") })?;
                Self { kind, update: None, update_json: update.map(Arc::from), checkpoint }.read(values)
            }
        }
    }
}

/// The form of an input in JSON.
#[derive(Serialize, Deserialize)]
struct InputJson {
    kind: InputKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    update: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checkpoint: Option<CheckpointId>,
}

fn raw(value: &Value) -> Box<RawValue> {
    // A `Value` is always valid JSON.
    RawValue::from_string(value.to_string()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

impl<S: State> fmt::Debug for Input<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, update, update_json, checkpoint } = self;
        f.debug_struct("Input")
            .field("kind", kind)
            .field("has_update", &(update.is_some() || update_json.is_some()))
            .field("checkpoint", checkpoint)
            .finish()
    }
}

/// A value with which a run on a thread can begin: an update of the state, or an [`Input`].
pub trait IntoInput<S: State> {
    /// Returns the input.
    fn into_input(self) -> Input<S>;
}

impl<S: State> IntoInput<S> for Input<S> {
    fn into_input(self) -> Input<S> {
        self
    }
}

impl<S: State<Update = U>, U: Update<State = S>> IntoInput<S> for U {
    fn into_input(self) -> Input<S> {
        Input::update(self)
    }
}

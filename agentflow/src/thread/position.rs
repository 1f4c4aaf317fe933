//! [`Position`]: the step that runs next on a thread, as a checkpoint holds it.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{codec, error::ThreadError};
use crate::{
    carried::{Input, InputType},
    graph::app::App,
    run::{NodeFailure, RunId, recorder::NextStep, recorder::Resumption},
    state::State,
    store::{NewQuestion, QuestionRow, Stored},
};

/// The step of the graph that runs next, or the end.
#[derive(Clone, Debug)]
pub(super) struct Position {
    /// The names of the graphs that the step is in, and of the step; empty at the end.
    pub(super) path: Vec<Arc<str>>,
    /// The run that first reached the step, and the number of the step in that run.
    pub(super) origin: Option<(RunId, u64)>,
    /// The failure that leads to the step.
    error: Option<StoredFailure>,
    /// The value that the edge to the step carries.
    input: Option<Carried>,
}

/// The form of a position in JSON.
#[derive(Debug, Serialize, Deserialize)]
struct PositionJson {
    path: Vec<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<(RunId, u64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<StoredFailure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    input: Option<Box<RawValue>>,
}

/// Returns the identity of a step at a node, as a question has it.
pub(super) fn step_of((run, number): (RunId, u64), node: &str) -> Arc<str> {
    format!("{run}/{number}/{node}").into()
}

/// The failure of a node, without the type of its error.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StoredFailure {
    node: Arc<str>,
    attempt: u32,
    text: String,
}

impl StoredFailure {
    pub(super) fn of(failure: &NodeFailure) -> Self {
        let NodeFailure { node, attempt, source, .. } = failure;
        Self { node: Arc::clone(node), attempt: *attempt, text: crate::panics::text_of(source) }
    }

    pub(super) fn restore(self) -> NodeFailure {
        let Self { node, attempt, text } = self;
        NodeFailure { node, attempt, elapsed: Duration::ZERO, source: text.into() }
    }
}

/// A value on an edge: its JSON, or the value.
#[derive(Clone, Debug)]
enum Carried {
    Json(Arc<RawValue>),
    Value(Input, InputType),
}

impl Position {
    /// The position at the end.
    pub(super) fn end() -> Self {
        Self { path: Vec::new(), origin: None, error: None, input: None }
    }

    /// The position at the first step of a run.
    pub(super) fn first(path: Vec<Arc<str>>, run: RunId) -> Self {
        Self { origin: Some((run, 1)), ..Self::at(path) }
    }

    /// The position at a step that no run has reached.
    pub(super) fn at(path: Vec<Arc<str>>) -> Self {
        Self { path, origin: None, error: None, input: None }
    }

    /// Returns the position of the step that a run has reached.
    pub(super) fn reached(next: &NextStep<'_>, origin: (RunId, u64)) -> Self {
        let input = next.input.map(|(input, input_type)| Carried::Value(input.clone(), input_type));
        let error = next.error.map(StoredFailure::of);
        Self { path: next.path.clone(), origin: Some(origin), error, input }
    }

    /// Adds the value that the step receives.
    pub(super) fn with_input(self, input: Input, input_type: InputType) -> Self {
        Self { input: Some(Carried::Value(input, input_type)), ..self }
    }

    /// Returns whether a question was asked by the step. After an edit the position has no identity that could tell.
    pub(super) fn has_asked(&self, question: &QuestionRow) -> bool {
        let NewQuestion { node, step, .. } = &question.asked;
        self.origin.is_none_or(|origin| step_of(origin, node) == *step)
    }

    pub(super) fn is_end(&self) -> bool {
        self.path.is_empty()
    }

    /// Returns the form that a store holds.
    pub(super) fn stored(&self, keeps_values: bool) -> Result<Stored, ThreadError> {
        if keeps_values {
            return Ok(Stored::Shared(Arc::new(self.clone())));
        }
        let Self { path, origin, error, input } = self.clone();
        let input = match input {
            None => None,
            Some(Carried::Json(json)) => Some((*json).to_owned()),
            Some(Carried::Value(input, input_type)) => Some(codec::encode_input(&input, input_type)?),
        };
        let json = serde_json::to_vec(&PositionJson { path, origin, error, input });
        json.map(Stored::from).map_err(|error| ThreadError::Unwritable { error: error.to_string() })
    }

    /// Reads the form that a store holds.
    pub(super) fn load(stored: &Stored) -> Result<Self, ThreadError> {
        match stored {
            Stored::Shared(value) => value.downcast_ref::<Self>().cloned().ok_or_else(|| ThreadError::Unreadable {
                error: "the position was kept by another version".to_owned(),
            }),
            Stored::Json(json) => {
                let read = serde_json::from_slice(json);
                let PositionJson { path, origin, error, input } =
                    read.map_err(|error| ThreadError::Unreadable { error: format!("the position: {error}") })?;
                Ok(Self { path, origin, error, input: input.map(|json| Carried::Json(json.into())) })
            }
        }
    }

    /// Returns what a run that goes on here needs. The graph must have the step, and the value must have its type.
    pub(super) fn resumption<S: State, C>(self, app: &App<S, C>, steps: usize) -> Result<Resumption, ThreadError> {
        let Self { path, origin, error, input } = self;
        let input_type = app.input_of(&path).map_err(|error| ThreadError::Unreadable { error })?;
        let input = match input {
            None => None,
            Some(Carried::Value(input, _)) => Some(input),
            Some(Carried::Json(json)) => Some(codec::decode_input(&json, input_type)?),
        };
        let path = VecDeque::from(path);
        Ok(Resumption { path, error: error.map(StoredFailure::restore), input, answer: None, steps, origin })
    }
}

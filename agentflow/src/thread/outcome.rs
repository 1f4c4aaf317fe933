//! [`Outcome`] and [`Question`]: the end of a run on a thread.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::store::{QuestionId, QuestionRow};

/// The end of a run on a thread.
#[derive(Clone, Debug)]
#[must_use = "a run that waits for an answer has no result yet"]
#[non_exhaustive]
pub enum Outcome<S> {
    /// The run has reached the end. This is the state.
    Done(S),
    /// The run has ended with questions; an answer begins another run.
    Waiting(Vec<Question>),
    /// The run was stopped before or after a node, by an option of the run. Another run resumes it.
    #[non_exhaustive]
    Stopped {
        /// The names of the nodes that run next.
        next: Vec<Arc<str>>,
    },
}

impl<S> Outcome<S> {
    /// Returns the state of a run that has reached the end.
    #[must_use]
    pub fn done(self) -> Option<S> {
        match self {
            Self::Done(state) => Some(state),
            Self::Waiting(_) | Self::Stopped { .. } => None,
        }
    }

    /// Returns the open questions; none if the run does not wait for an answer.
    #[must_use]
    pub fn questions(&self) -> &[Question] {
        match self {
            Self::Waiting(questions) => questions,
            Self::Done(_) | Self::Stopped { .. } => &[],
        }
    }
}

/// An open question of a thread.
#[derive(Clone, Debug)]
pub struct Question {
    id: QuestionId,
    node: Arc<str>,
    json: Box<RawValue>,
}

impl Question {
    /// Creates the question that a store holds.
    pub(super) fn of(row: &QuestionRow) -> Self {
        let json = row.asked.question.json().and_then(|json| serde_json::from_slice(json).ok());
        // A store holds the JSON that it was given.
        let json = json.unwrap_or_else(|| RawValue::NULL.to_owned());
        Self { id: row.asked.id, node: Arc::clone(&row.asked.node), json }
    }

    /// Returns the id, with which an answer names the question.
    #[must_use]
    pub fn id(&self) -> QuestionId {
        self.id
    }

    /// Returns the name of the node that asks; in a branch of an `each` with the index of its item.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Returns the question as JSON.
    #[must_use]
    pub fn json(&self) -> &RawValue {
        &self.json
    }

    /// Returns the question, as the node's type or as one with the same JSON.
    ///
    /// # Errors
    ///
    /// Fails if the question is not a `Q`.
    pub fn decode<Q: DeserializeOwned>(&self) -> Result<Q, serde_json::Error> {
        serde_json::from_str(self.json.get())
    }
}

//! [`ThreadState`]: one checkpoint of a thread, as users see it.

use std::sync::Arc;

use super::{codec::Values, error::ThreadError, outcome::Question};
use crate::{
    run::RunId,
    state::State,
    store::{CheckpointId, CheckpointRow, QuestionRow, Source, Timestamp},
};

/// The state of a thread at one of its checkpoints.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ThreadState<S> {
    /// The state of the graph.
    pub values: S,
    /// The names of the nodes that run next; empty at the end. Before the input of a run it is `__start__`.
    pub next: Vec<Arc<str>>,
    /// The checkpoint.
    pub checkpoint: CheckpointId,
    /// The checkpoint before it.
    pub parent: Option<CheckpointId>,
    /// The run that made it; `None` for an edit.
    pub run: Option<RunId>,
    /// The origin.
    pub source: Source,
    /// The number on its branch: −1 for the first one.
    pub step: i64,
    /// The time at which it was made.
    pub created_at: Timestamp,
    /// The open questions, if this is the newest checkpoint of the thread.
    pub questions: Vec<Question>,
}

impl<S: State> ThreadState<S> {
    pub(super) fn of(row: &CheckpointRow, values: &Values<S>, questions: &[QuestionRow]) -> Result<Self, ThreadError> {
        Ok(Self {
            values: values.load(row)?,
            next: row.next.clone(),
            checkpoint: row.id,
            parent: row.parent,
            run: row.run,
            source: row.source,
            step: row.step,
            created_at: row.created_at,
            questions: questions.iter().map(Question::of).collect(),
        })
    }
}

//! Threads and their checkpoints, as a store holds them.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    id::{CheckpointId, QuestionId, ThreadId},
    value::{Stored, Timestamp},
};
use crate::run_id::RunId;

/// The state of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ThreadStatus {
    /// No run is unfinished, and the last one reached the end, or there was none.
    Idle,
    /// A run is running, or queued and due.
    Busy,
    /// No run is unfinished; a question, a stop or a cancel has left a position.
    Paused,
    /// No run is unfinished; a failure has left a position.
    Failed,
}

/// The state of a thread without an unfinished run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rest {
    /// The position is the end, or there is no position.
    #[default]
    Idle,
    /// A question, a stop or a cancel has left a position.
    Paused,
    /// A failure has left a position.
    Failed,
}

impl From<Rest> for ThreadStatus {
    fn from(rest: Rest) -> Self {
        match rest {
            Rest::Idle => Self::Idle,
            Rest::Paused => Self::Paused,
            Rest::Failed => Self::Failed,
        }
    }
}

/// A thread.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ThreadRow {
    /// The thread's id.
    pub id: ThreadId,
    /// The name of the graph that the thread belongs to.
    pub graph: Arc<str>,
    /// The newest checkpoint of the current branch; `None` before the first run.
    pub head: Option<CheckpointId>,
    /// The state of the thread.
    pub status: ThreadStatus,
    /// The caller's own data.
    pub metadata: Map<String, Value>,
    /// The time at which the thread was made.
    pub created_at: Timestamp,
    /// The time of the last change.
    pub updated_at: Timestamp,
}

impl ThreadRow {
    /// Creates the row of a new thread.
    #[must_use]
    pub fn new(id: ThreadId, graph: Arc<str>, now: Timestamp) -> Self {
        let metadata = Map::new();
        Self { id, graph, head: None, status: ThreadStatus::Idle, metadata, created_at: now, updated_at: now }
    }
}

/// A request to make a thread before its first run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewThread {
    /// The thread's id.
    pub id: ThreadId,
    /// The name of the graph that the thread belongs to.
    pub graph: Arc<str>,
    /// The caller's own data.
    pub metadata: Map<String, Value>,
}

impl NewThread {
    /// Creates a request without metadata.
    #[must_use]
    pub fn new(id: ThreadId, graph: Arc<str>) -> Self {
        Self { id, graph, metadata: Map::new() }
    }
}

/// A selection of threads, and their order: the most recently changed first.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ThreadFilter {
    /// Selects the threads of this graph.
    pub graph: Option<Arc<str>>,
    /// Selects these threads.
    pub ids: Option<Vec<ThreadId>>,
    /// Selects the threads in this state.
    pub status: Option<ThreadStatus>,
    /// Selects the threads whose metadata has these values.
    pub metadata: Map<String, Value>,
    /// Selects the threads whose last change was before this time.
    pub updated_before: Option<Timestamp>,
    /// Selects the threads without an open question.
    pub without_questions: bool,
    /// The order.
    pub order: ThreadOrder,
    /// The number of threads to leave out at the start.
    pub offset: usize,
    /// The greatest number of threads; `None` for all.
    pub limit: Option<usize>,
}

/// The order of a list of threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ThreadOrder {
    /// The most recently changed thread first.
    #[default]
    Updated,
    /// The newest thread first.
    Created,
    /// By id.
    Id,
}

/// A page of a list of threads.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ThreadPage {
    /// The threads of the page.
    pub threads: Vec<ThreadRow>,
    /// The number of all threads that the filter selects.
    pub total: usize,
}

impl ThreadPage {
    /// Creates a page.
    #[must_use]
    pub fn new(threads: Vec<ThreadRow>, total: usize) -> Self {
        Self { threads, total }
    }
}

/// The origin of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Source {
    /// A run was accepted; the values are those before its input.
    Input,
    /// An input was merged, or a step has ended.
    Loop,
    /// The state was edited.
    Update,
    /// A run began at an older checkpoint.
    Fork,
}

/// The state that a new checkpoint has.
#[derive(Clone, Debug)]
pub enum NewValues {
    /// The state of the parent.
    Same,
    /// The whole state.
    Snapshot(Stored),
    /// The difference to the state of the parent.
    Delta(Bytes),
}

/// A checkpoint to be made. The store gives it its id, its number and its time.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewCheckpoint {
    /// The origin.
    pub source: Source,
    /// The state.
    pub values: NewValues,
    /// The version of the state's type.
    pub state_version: u32,
    /// The names of what runs next: a node, or all branches of a group; empty at the end.
    pub next: Vec<Arc<str>>,
    /// The next step and its input: JSON of the library, or the value itself in a store that keeps values.
    pub position: Stored,
    /// The updates of the nodes of the step, by name: JSON of the library.
    pub writes: Option<Bytes>,
    /// A hash of the graph's topology.
    pub graph_hash: u64,
}

impl NewCheckpoint {
    /// Creates a checkpoint of a state of version 1, without writes.
    #[must_use]
    pub fn new(source: Source, values: NewValues, next: Vec<Arc<str>>, position: Stored) -> Self {
        Self { source, values, state_version: 1, next, position, writes: None, graph_hash: 0 }
    }
}

/// A checkpoint: the state after a step, and what runs next.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CheckpointRow {
    /// The checkpoint's id.
    pub id: CheckpointId,
    /// The checkpoint before it on its branch.
    pub parent: Option<CheckpointId>,
    /// The run that made it; `None` for an edit.
    pub run: Option<RunId>,
    /// The origin.
    pub source: Source,
    /// The number on its branch: −1 for the first one.
    pub step: i64,
    /// The state, with all differences folded in.
    pub values: Stored,
    /// The version of the state's type.
    pub state_version: u32,
    /// The names of what runs next.
    pub next: Vec<Arc<str>>,
    /// The next step and its input.
    pub position: Stored,
    /// The updates of the nodes of the step.
    pub writes: Option<Bytes>,
    /// A hash of the graph's topology.
    pub graph_hash: u64,
    /// The length of the differences since the last whole state, in bytes.
    pub delta_bytes: u64,
    /// The time at which it was made.
    pub created_at: Timestamp,
}

impl CheckpointRow {
    /// Creates the row of a checkpoint with a whole state.
    #[must_use]
    pub fn new(id: CheckpointId, step: i64, new: NewCheckpoint, values: Stored, now: Timestamp) -> Self {
        let NewCheckpoint { source, state_version, next, position, writes, graph_hash, .. } = new;
        Self {
            id,
            parent: None,
            run: None,
            source,
            step,
            values,
            state_version,
            next,
            position,
            writes,
            graph_hash,
            delta_bytes: 0,
            created_at: now,
        }
    }
}

/// A selection of the checkpoints of a thread, newest first.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct HistoryFilter {
    /// Selects the checkpoints with lesser ids.
    pub before: Option<CheckpointId>,
    /// Selects the checkpoints that this run made.
    pub run: Option<RunId>,
    /// Selects the checkpoints of this origin.
    pub source: Option<Source>,
    /// The greatest number of checkpoints; `None` for all.
    pub limit: Option<usize>,
}

/// The state of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum QuestionStatus {
    /// The question waits for an answer.
    Open,
    /// A run was started with an answer, and the node has not ended yet.
    Answered,
    /// The node that had the answer has ended, or asks something else.
    Closed,
    /// Another input, an edit or a new question has taken its place.
    Dropped,
}

/// A question to be asked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewQuestion {
    /// The question's id, which its asker makes.
    pub id: QuestionId,
    /// The name of the node that asks, with the path of its branch.
    pub node: Arc<str>,
    /// The step of the node, with the path of its branch.
    pub step: Arc<str>,
    /// The question.
    pub question: Stored,
}

impl NewQuestion {
    /// Creates a question.
    #[must_use]
    pub fn new(id: QuestionId, node: Arc<str>, step: Arc<str>, question: Stored) -> Self {
        Self { id, node, step, question }
    }
}

/// A question of a thread.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QuestionRow {
    /// The question as it was asked.
    pub asked: NewQuestion,
    /// The run that asked.
    pub asked_by: RunId,
    /// The state of the question.
    pub status: QuestionStatus,
    /// The run that was started with the answer.
    pub answered_by: Option<RunId>,
    /// The answer.
    pub answer: Option<Stored>,
    /// The run that closed or dropped the question; `None` also after an edit that dropped it. A rollback of the run
    /// reverses it.
    pub ended_by: Option<RunId>,
    /// The checkpoint that was the head when the question was asked.
    pub checkpoint: Option<CheckpointId>,
    /// The time at which it was asked.
    pub created_at: Timestamp,
}

impl QuestionRow {
    /// Creates the row of an open question.
    #[must_use]
    pub fn new(asked: NewQuestion, asked_by: RunId, checkpoint: Option<CheckpointId>, now: Timestamp) -> Self {
        let status = QuestionStatus::Open;
        Self { asked, asked_by, status, answered_by: None, answer: None, ended_by: None, checkpoint, created_at: now }
    }
}

/// An answer to a question.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewAnswer {
    /// The question.
    pub question: QuestionId,
    /// The answer.
    pub answer: Stored,
}

impl NewAnswer {
    /// Creates an answer.
    #[must_use]
    pub fn new(question: QuestionId, answer: Stored) -> Self {
        Self { question, answer }
    }
}

/// An edit of a thread outside of a run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Edit {
    /// The thread; it is made if it does not exist.
    pub thread: ThreadId,
    /// The name of the graph that the thread belongs to.
    pub graph: Arc<str>,
    /// The head that the edit was computed from.
    pub expected_head: Option<CheckpointId>,
    /// The parent of the new checkpoint. If it is not the head, the questions are dropped and the progress is deleted.
    pub parent: Option<CheckpointId>,
    /// The new checkpoint.
    pub checkpoint: NewCheckpoint,
    /// Drops the open questions and deletes the progress of the step; else both stay.
    pub drops_questions: bool,
    /// The state in which the thread is afterwards.
    pub rest: Rest,
}

impl Edit {
    /// Creates an edit of the head, after which the questions are as before.
    #[must_use]
    pub fn new(
        thread: ThreadId,
        graph: Arc<str>,
        expected_head: Option<CheckpointId>,
        checkpoint: NewCheckpoint,
        rest: Rest,
    ) -> Self {
        Self { thread, graph, expected_head, parent: expected_head, checkpoint, drops_questions: false, rest }
    }
}

/// The outcome of an edit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Edited {
    /// The checkpoint was made and is the head.
    Made(CheckpointId),
    /// A run of the thread is unfinished and due.
    Busy(RunId),
    /// The head is another one than expected.
    HeadMoved(Option<CheckpointId>),
    /// The thread belongs to the graph of this name.
    OtherGraph(Arc<str>),
}

/// The outcome of deleting a thread or a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deleted {
    /// It was deleted.
    Yes,
    /// There is none.
    NotFound,
    /// A run of the thread, or the run itself, is running under a live owner.
    Busy(RunId),
}

/// The result of one node, or of the steps so far, in a step that has not ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProgressRecord {
    /// The step.
    pub step: Arc<str>,
    /// The path of the branch in the step.
    pub path: Arc<str>,
    /// The record: JSON of the library, or the value itself in a store that keeps values.
    pub record: Stored,
}

impl ProgressRecord {
    /// Creates a record.
    #[must_use]
    pub fn new(step: Arc<str>, path: Arc<str>, record: Stored) -> Self {
        Self { step, path, record }
    }
}

//! [`ThreadError`]: the error of an operation on a thread.

use std::sync::Arc;

use crate::{
    run::{RunError, RunId},
    store::{CheckpointId, InvalidThreadId, QuestionId, StoreError},
    task::SpawnError,
};

/// The error of an operation on a [`Thread`](super::Thread).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ThreadError {
    /// The text is not the id of a thread.
    #[error(transparent)]
    InvalidId(#[from] InvalidThreadId),
    /// The run was accepted and did not reach its end.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A run of the thread is unfinished. [`RunConfig::on_busy_thread`](crate::RunConfig::on_busy_thread) says what a new
    /// run does then.
    #[error(
        "the thread is busy with run {run}{}; set `on_busy_thread` to queue behind it or to cancel it",
        if *.is_driven { "" } else { ", which no live process drives: `recover` takes it over" }
    )]
    #[non_exhaustive]
    Busy {
        /// The unfinished run.
        run: RunId,
        /// True if a live process drives it.
        is_driven: bool,
    },
    /// The thread belongs to another graph.
    #[error("the thread belongs to the graph `{graph}`")]
    #[non_exhaustive]
    OtherGraph {
        /// The name of the other graph.
        graph: Arc<str>,
    },
    /// There is no such thread.
    #[error("there is no such thread")]
    NoSuchThread,
    /// The thread exists already.
    #[error("the thread exists already")]
    Exists,
    /// The thread has no such checkpoint.
    #[error("the thread has no checkpoint {checkpoint}")]
    #[non_exhaustive]
    NoSuchCheckpoint {
        /// The id.
        checkpoint: CheckpointId,
    },
    /// The thread's last run has reached the end, or there was none, so that there is nothing to resume.
    #[error("there is nothing to resume: the thread has no run that stopped before its end")]
    NothingToResume,
    /// The thread has no open question with this id.
    #[error("the thread has no open question {question}")]
    #[non_exhaustive]
    NoSuchQuestion {
        /// The id.
        question: QuestionId,
    },
    /// The question was answered before.
    #[error("the question {question} was answered before")]
    #[non_exhaustive]
    AlreadyAnswered {
        /// The id.
        question: QuestionId,
    },
    /// The answer is not of the type that the node takes. The question stays open.
    #[error("the answer to node `{node}` is not a `{expected}`: {error}")]
    #[non_exhaustive]
    WrongAnswer {
        /// The node that asked.
        node: Arc<str>,
        /// The type that the node takes.
        expected: &'static str,
        /// The error, with the path of the field.
        error: String,
    },
    /// The input is not of the type that is needed.
    #[error("the input is not valid: {error}")]
    #[non_exhaustive]
    WrongInput {
        /// The error, with the path of the field.
        error: String,
    },
    /// A run cannot begin at this node, or an edit cannot be that of this node.
    #[error("`{node}` cannot be used here: {reason}")]
    #[non_exhaustive]
    WrongNode {
        /// The node.
        node: Arc<str>,
        /// The reason, and what to do instead.
        reason: &'static str,
    },
    /// The stored state, or the position in the graph, cannot be read by this code. The thread stays as it is.
    #[error("what is stored of the thread does not fit this code: {error}")]
    #[non_exhaustive]
    Unreadable {
        /// The field or the node, and what is wrong.
        error: String,
    },
    /// A value cannot be written as JSON without a loss.
    #[error("the value cannot be stored: {error}")]
    #[non_exhaustive]
    Unwritable {
        /// The field, and what is wrong.
        error: String,
    },
    /// The state has no serialization: the graph was compiled without a store.
    #[error("the state has no JSON form: compile the graph with a `store`")]
    NotSerializable,
    /// The queued run was cancelled before its turn, or its thread was deleted.
    #[error("the run was cancelled before it began")]
    CancelledBeforeStart,
    /// There is no tokio runtime for the run, or the runtime dropped it.
    #[error("there is no tokio runtime for the run, or it has ended")]
    NoRuntime,
    /// The app's task manager refused the task of the run.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The app is shut down.
    #[error("the app is shut down: it starts no more runs")]
    Closed,
}

//! Runs, as a store holds them, and the requests that begin, commit and end them.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    id::{CheckpointId, OwnerId, QuestionId, ThreadId},
    task::NewTask,
    thread::{CheckpointRow, NewAnswer, NewCheckpoint, NewQuestion, ProgressRecord, QuestionRow, QuestionStatus, Rest},
    value::{Stored, Timestamp},
};
use crate::run_id::RunId;

/// The state of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RunStatus {
    /// The run waits for its turn.
    Queued,
    /// An owner drives the run.
    Running,
    /// The run reached the end.
    Done,
    /// The run asked a question, or was stopped before or after a node.
    Waiting,
    /// The run failed.
    Failed,
    /// The run was cancelled.
    Cancelled,
}

impl RunStatus {
    /// Returns whether the run has ended.
    #[must_use]
    pub fn has_ended(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

/// The behaviour of a new run on a busy thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnBusyThread {
    /// The new run is refused.
    #[default]
    Reject,
    /// The new run waits until the runs before it have ended.
    Queue,
    /// The running run is cancelled, and the new one waits for its end.
    Cancel,
    /// The running run is rolled back, and the new one waits for its end.
    Rollback,
}

/// The kind of a cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CancelKind {
    /// The run ends, and its checkpoints stay.
    Cancel,
    /// The run ends as if it had never been: its checkpoints, questions, tasks that have not started and the run itself
    /// are deleted.
    Rollback,
}

/// A run, as it was accepted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewRun {
    /// The run's id.
    pub id: RunId,
    /// The thread.
    pub thread: ThreadId,
    /// The name of the graph.
    pub graph: Arc<str>,
    /// The owner that accepts the run.
    pub owner: OwnerId,
    /// The input: JSON of the library, or the value itself in a store that keeps values.
    pub input: Stored,
    /// The configuration: JSON of the library.
    pub config: Stored,
    /// The caller's own data.
    pub metadata: Map<String, Value>,
    /// The earliest time at which the run may start.
    pub not_before: Option<Timestamp>,
}

impl NewRun {
    /// Creates a run that may start at once, without metadata.
    #[must_use]
    pub fn new(id: RunId, thread: ThreadId, graph: Arc<str>, owner: OwnerId, input: Stored, config: Stored) -> Self {
        Self { id, thread, graph, owner, input, config, metadata: Map::new(), not_before: None }
    }
}

/// The failure of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunFailure {
    /// The kind of the failure: the name of a variant of [`RunErrorKind`](crate::run::RunErrorKind), or `Poison`.
    pub kind: Arc<str>,
    /// The text of the error.
    pub message: String,
    /// The node that failed.
    pub node: Option<Arc<str>>,
}

impl RunFailure {
    /// Creates a failure.
    #[must_use]
    pub fn new(kind: impl Into<Arc<str>>, message: impl Into<String>, node: Option<Arc<str>>) -> Self {
        Self { kind: kind.into(), message: message.into(), node }
    }
}

/// A run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RunRow {
    /// The run as it was accepted. Its owner is the one that accepted it.
    pub run: NewRun,
    /// The state of the run.
    pub status: RunStatus,
    /// The owner that drives the run, or that would start it.
    pub owner: OwnerId,
    /// The number of owners that the run has had, from 1. A commit of an earlier epoch is refused.
    pub epoch: u64,
    /// The place of the run in the order in which the store accepted runs.
    pub sequence: u64,
    /// The number of takeovers from a dead owner since the last commit.
    pub crashes: u32,
    /// The cancel that was requested.
    pub cancel: Option<CancelKind>,
    /// The checkpoint at which the run begins, of a queued run the one that its acceptance named.
    pub base: Option<CheckpointId>,
    /// The head of the thread before the run. A rollback moves the head back to it.
    pub head_before: Option<CheckpointId>,
    /// The state in which the thread was before the run. A rollback gives it back.
    pub rest_before: Rest,
    /// The checkpoint that the run's next commit follows.
    pub last_checkpoint: Option<CheckpointId>,
    /// The number of the run's last commit; zero before the first.
    pub commit: u64,
    /// The number of steps that the run has committed.
    pub steps: u64,
    /// The time for which a live owner has had the run.
    pub consumed: Duration,
    /// The failure of a failed run.
    pub failure: Option<RunFailure>,
    /// The time of the acceptance.
    pub created_at: Timestamp,
    /// The time of the last change.
    pub updated_at: Timestamp,
}

impl RunRow {
    /// Creates the row of a run that has just been accepted.
    #[must_use]
    pub fn new(run: NewRun, sequence: u64, now: Timestamp) -> Self {
        let owner = run.owner;
        Self {
            run,
            status: RunStatus::Queued,
            owner,
            epoch: 1,
            sequence,
            crashes: 0,
            cancel: None,
            base: None,
            head_before: None,
            rest_before: Rest::Idle,
            last_checkpoint: None,
            commit: 0,
            steps: 0,
            consumed: Duration::ZERO,
            failure: None,
            created_at: now,
            updated_at: now,
        }
    }
}

/// The writes at the start of a run, computed from the thread's head.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RunStart {
    /// The head that everything else was computed from.
    pub expected_head: Option<CheckpointId>,
    /// The checkpoint at which the run begins: the head, or an older one, from which the run makes a branch.
    pub base: Option<CheckpointId>,
    /// The first checkpoints of the run, each the parent of the next. The head moves to the last one.
    pub checkpoints: Vec<NewCheckpoint>,
    /// The answers with which the run begins.
    pub answers: Vec<NewAnswer>,
    /// Drops the open questions of the thread and deletes the progress of its step.
    pub drops_questions: bool,
}

impl RunStart {
    /// Creates the start of a run at the head, without checkpoints.
    #[must_use]
    pub fn at(head: Option<CheckpointId>) -> Self {
        Self { expected_head: head, base: head, ..Self::default() }
    }
}

/// A request to accept a run, and to start it if nothing is in its way.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BeginRun {
    /// The run.
    pub run: NewRun,
    /// The behaviour on a busy thread.
    pub on_busy: OnBusyThread,
    /// The writes at the start of the run. A run that is queued has another start later.
    pub start: RunStart,
}

impl BeginRun {
    /// Creates a request.
    #[must_use]
    pub fn new(run: NewRun, on_busy: OnBusyThread, start: RunStart) -> Self {
        Self { run, on_busy, start }
    }
}

/// The outcome of [`Store::begin_run`](super::Store::begin_run) and [`Store::start_run`](super::Store::start_run).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Begun {
    /// The run is running.
    Running(RunStarted),
    /// The run waits for another one, or for its time.
    Queued {
        /// The unfinished run before it.
        behind: Option<RunId>,
    },
    /// The thread is busy, and the run was not accepted.
    Busy {
        /// The unfinished run.
        run: RunId,
        /// True if its owner is alive.
        is_driven: bool,
    },
    /// The head is another one than expected. Nothing was written; for a queued run, it is still queued.
    HeadMoved(Option<CheckpointId>),
    /// A run with this id exists on this thread; or, when it is started, it is running already.
    Known(Box<RunRow>),
    /// One of the answered questions is not open, or is no question of this thread (`None`). Nothing was written.
    NotOpen {
        /// The question.
        question: QuestionId,
        /// Its state.
        status: Option<QuestionStatus>,
    },
    /// The thread belongs to the graph of this name. Nothing was written.
    OtherGraph(Arc<str>),
    /// A checkpoint that the request names is not there. Nothing was written.
    NoSuchCheckpoint(CheckpointId),
    /// The run has ended or is not there: it was cancelled, or its thread was deleted.
    Gone,
}

/// A run that has started.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunStarted {
    /// The epoch that commits name.
    pub epoch: u64,
    /// The ids of the first checkpoints.
    pub checkpoints: Vec<CheckpointId>,
}

impl RunStarted {
    /// Creates the outcome.
    #[must_use]
    pub fn new(epoch: u64, checkpoints: Vec<CheckpointId>) -> Self {
        Self { epoch, checkpoints }
    }
}

/// The end of a run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RunEnd {
    /// The state in which the run ends: one that has ended.
    pub status: RunStatus,
    /// The failure of a failed run.
    pub failure: Option<RunFailure>,
    /// The state in which the thread is afterwards, except after a rollback.
    pub rest: Rest,
    /// Deletes the run and everything that it made; the head and the state of the thread are again those before the run.
    pub rolls_back: bool,
    /// Deletes the thread.
    pub deletes_thread: bool,
}

impl RunEnd {
    /// Creates an end without a failure.
    #[must_use]
    pub fn new(status: RunStatus, rest: Rest) -> Self {
        Self { status, failure: None, rest, rolls_back: false, deletes_thread: false }
    }
}

/// A commit of a run: all that one step writes, in one transaction.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Commit {
    /// The run.
    pub run: RunId,
    /// The epoch of the owner.
    pub epoch: u64,
    /// The number of the commit in the run, from 1. A commit whose number is not greater than that of the run's last
    /// commit succeeds and changes nothing.
    pub number: u64,
    /// The checkpoint that the run's last commit, or its start, made.
    pub parent: Option<CheckpointId>,
    /// The new checkpoint.
    pub checkpoint: Option<NewCheckpoint>,
    /// The durable tasks that the step started.
    pub tasks: Vec<NewTask>,
    /// The questions that the step asked.
    pub questions: Vec<NewQuestion>,
    /// The questions whose nodes have ended: they become closed.
    pub closes: Vec<QuestionId>,
    /// The questions that nobody can answer any more: they become dropped.
    pub drops: Vec<QuestionId>,
    /// Answered questions that become open again, because their answers could not be read.
    pub reopens: Vec<QuestionId>,
    /// The step whose progress is deleted.
    pub clears: Option<Arc<str>>,
    /// The progress that is written with the commit.
    pub progress: Vec<ProgressRecord>,
    /// The number of steps that the run has made.
    pub steps: u64,
    /// The time for which a live owner has had the run.
    pub consumed: Duration,
    /// The end of the run.
    pub end: Option<RunEnd>,
}

impl Commit {
    /// Creates a commit that writes nothing yet.
    #[must_use]
    pub fn new(run: RunId, epoch: u64, number: u64, parent: Option<CheckpointId>) -> Self {
        Self {
            run,
            epoch,
            number,
            parent,
            checkpoint: None,
            tasks: Vec::new(),
            questions: Vec::new(),
            closes: Vec::new(),
            drops: Vec::new(),
            reopens: Vec::new(),
            clears: None,
            progress: Vec::new(),
            steps: 0,
            consumed: Duration::ZERO,
            end: None,
        }
    }
}

/// The outcome of a commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Committed {
    /// The id of the new checkpoint. A repeated commit returns that of the run's last checkpoint.
    pub checkpoint: Option<CheckpointId>,
    /// The cancel that is requested.
    pub cancel: Option<CancelKind>,
}

impl Committed {
    /// Creates the outcome.
    #[must_use]
    pub fn new(checkpoint: Option<CheckpointId>, cancel: Option<CancelKind>) -> Self {
        Self { checkpoint, cancel }
    }
}

/// The outcome of a request to cancel a run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CancelRequested {
    /// The run was queued and is cancelled.
    Cancelled,
    /// The run is marked; its owner will end it.
    Marked {
        /// The owner.
        owner: OwnerId,
        /// True if the owner is alive and drives the run; false for a released run.
        is_alive: bool,
    },
    /// The run had ended.
    AlreadyEnded(RunStatus),
    /// There is no such run.
    NotFound,
}

/// A request to take over the runs of owners that are not alive.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TakeOver {
    /// The name of the graph.
    pub graph: Arc<str>,
    /// The new owner.
    pub owner: OwnerId,
    /// Takes over this run only.
    pub run: Option<RunId>,
    /// The runs that the caller cannot drive.
    pub except: Vec<RunId>,
    /// The greatest number of runs, beside those that are parked.
    pub limit: usize,
}

impl TakeOver {
    /// Creates a request.
    #[must_use]
    pub fn new(graph: Arc<str>, owner: OwnerId, limit: usize) -> Self {
        Self { graph, owner, run: None, except: Vec::new(), limit }
    }
}

/// A run that was taken over.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TakenRun {
    /// The run, under its new owner and epoch. A run that had not started is queued; one that was parked has failed.
    pub run: RunRow,
    /// The run's last checkpoint.
    pub checkpoint: Option<CheckpointRow>,
    /// The thread's questions that are open, or that this run has answered.
    pub questions: Vec<QuestionRow>,
    /// The progress of the thread's step.
    pub progress: Vec<ProgressRecord>,
}

impl TakenRun {
    /// Creates the outcome.
    #[must_use]
    pub fn new(
        run: RunRow,
        checkpoint: Option<CheckpointRow>,
        questions: Vec<QuestionRow>,
        progress: Vec<ProgressRecord>,
    ) -> Self {
        Self { run, checkpoint, questions, progress }
    }
}

/// A selection of runs, newest first.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RunFilter {
    /// Selects the runs of this thread.
    pub thread: Option<ThreadId>,
    /// Selects the runs of this graph.
    pub graph: Option<Arc<str>>,
    /// Selects the runs in this state.
    pub status: Option<RunStatus>,
    /// Selects the runs that this owner drives, or would start.
    pub owner: Option<OwnerId>,
    /// The number of runs to leave out at the start.
    pub offset: usize,
    /// The greatest number of runs; `None` for all.
    pub limit: Option<usize>,
}

/// Returns whether a run or a task may be taken over that has caused, or was there at, `crashes` deaths of a process, with
/// this one, beside `others`, the runs and tasks of at least as many crashes that run already.
///
/// The rule protects the innocent: a run that was merely there when another one killed the process is resumed together
/// with others; only one that kills the process while it runs alone is parked.
#[must_use]
pub fn may_resume(crashes: u32, others: usize) -> bool {
    match crashes {
        0 | 1 => true,
        2 => others < 16,
        _ => others == 0,
    }
}

/// The number of crashes at which a run or a task is parked: it has failed, and is not resumed by itself.
pub const POISON_CRASHES: u32 = 5;

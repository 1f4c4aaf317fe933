//! Stores: where threads, checkpoints, questions, durable tasks and items are kept.
//!
//! [`Store`] is the interface of a store. Users choose one, `compile { store: store }`, and call none of its methods.
//! An implementation of one's own is checked by the conformance suite of the feature `conformance`.

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod delta;
mod error;
mod id;
mod into_store;
mod item;
mod keeps;
mod memory;
mod run;
mod task;
mod thread;
mod value;

use std::{fmt, pin::Pin, time::Duration};

use serde_json::{Map, Value};

pub use error::{StoreError, StoreErrorKind};
pub use id::{CheckpointId, InvalidId, InvalidThreadId, OwnerId, QuestionId, StoredTaskId, ThreadId};
pub use into_store::IntoStore;
pub use item::{ItemFilter, ItemRow, PutItem, PutOutcome};
#[doc(hidden)]
pub use keeps::StateCodec;
pub use keeps::{Durable, InMemory, Keeps, KeepsInput, Persistence};
pub use memory::MemoryStore;
pub use run::{
    BeginRun, Begun, CancelKind, CancelRequested, Commit, Committed, NewRun, OnBusyThread, POISON_CRASHES, RunEnd,
    RunFailure, RunFilter, RunRow, RunStart, RunStarted, RunStatus, TakeOver, TakenRun, may_resume,
};
pub use task::{
    Claim, Claimed, Enqueued, FinishTask, Fire, Fired, KeyPolicy, NewTask, Overlap, ReleaseTask, ScheduleRow,
    StoredTaskFilter, TaskChanged, TaskEnd, TaskKey, TaskRetention, TaskRow, TaskStatus,
};
pub use thread::{
    CheckpointRow, Deleted, Edit, Edited, HistoryFilter, NewAnswer, NewCheckpoint, NewQuestion, NewThread, NewValues,
    ProgressRecord, QuestionRow, QuestionStatus, Rest, Source, ThreadFilter, ThreadOrder, ThreadPage, ThreadRow,
    ThreadStatus,
};
pub use value::{Stored, Timestamp};

use crate::run_id::RunId;

/// The future of an operation of a store.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// The abilities of a store, which differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Values are kept as they are, and need not be written as JSON. Nothing outlives the process.
    pub keeps_values: bool,
    /// Several processes, or several apps, can open the store at the same time.
    pub is_shared: bool,
    /// Acknowledged writes outlive the process.
    pub is_durable: bool,
}

/// A store of threads, checkpoints, questions, durable tasks and items.
///
/// Each writing operation is one transaction: all of it, or nothing. An owner's write is *live* if the run or the task is
/// running under this owner, in this epoch; the store refuses any other one with [`StoreErrorKind::Fenced`]. Reads give
/// what is committed, a caller's own writes at once. All times are those of the store's clock; requests have durations.
///
/// # Cancel safety
///
/// A future that is dropped may or may not have carried out its operation, and nothing in between.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Returns what the store can do.
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    /// Creates the tables of the store, or brings them up to date. It may be called more than once.
    fn open(&self) -> StoreFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    /// Flushes and closes the store. Operations after it fail.
    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    // ---- Owners.

    /// Adds an owner, which is alive from now on: for `lease`, or as long as its process lives.
    fn join(&self, owner: OwnerId, lease: Duration) -> StoreFuture<'_, ()>;

    /// Renews the lease of an owner, also one that has run out.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::Fenced`] if the owner is not there any more.
    fn renew(&self, owner: OwnerId, lease: Duration) -> StoreFuture<'_, ()>;

    /// Removes an owner. Runs and tasks that it still holds are taken over as those of a dead one.
    fn leave(&self, owner: OwnerId) -> StoreFuture<'_, ()>;

    // ---- Runs.

    /// Accepts a run, and starts it if no unfinished run that is due is on its thread and its own time has come. A thread
    /// that does not exist is made. A run whose time has not come is refused by a busy thread all the same.
    ///
    /// A run with the same id on the same thread is [`Begun::Known`], whatever else the request says; on another thread it
    /// is [`StoreErrorKind::Invalid`]. With [`OnBusyThread::Cancel`] and [`OnBusyThread::Rollback`] a cancel is requested
    /// of the running run and of each queued one that is due, and the run is queued.
    ///
    /// The answered questions have to be open also for a run that is queued; its expected head and its `base` are looked at
    /// when it starts. They are checked before the policy, and a refused request changes nothing.
    ///
    /// The start writes its checkpoints, marks the answered questions, drops those it has to drop, and makes the last
    /// checkpoint the head. A `base` that is not the head moves the head, which drops the open questions of the thread and
    /// deletes its progress.
    fn begin_run(&self, request: BeginRun) -> StoreFuture<'_, Begun>;

    /// Starts a queued run, if it is the first due one of its thread and none is running, as [`begin_run`](Self::begin_run)
    /// does. Else it is [`Begun::Queued`] still. The run is `owner`'s afterwards, in a new epoch if it was another's.
    ///
    /// The first is a released run, then the one that was accepted first; times have no influence. A released run is
    /// resumed by [`take_over`](Self::take_over), and is [`StoreErrorKind::Invalid`] here.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::Fenced`] if the run is neither `owner`'s nor that of a dead owner.
    fn start_run(&self, run: RunId, owner: OwnerId, start: RunStart) -> StoreFuture<'_, Begun>;

    /// Commits a step, or the end, of a run that is live.
    ///
    /// A commit sets the run's `crashes` to zero. The open questions hang on the head: a new checkpoint leaves their
    /// states as they are but for those that the commit closes, drops or reopens: a question in another state than the
    /// change begins at stays as it is. In the current epoch a commit number that is not greater than the last one's
    /// succeeds and changes nothing, also after the run's end. An end that deletes the run, or its thread, leaves nothing
    /// that could tell a repeated commit: it is `Fenced`.
    ///
    /// A rollback opens the questions that the run answered or dropped, and those that it closed are as before. It deletes
    /// the run's tasks that have never been claimed and cancels the others; it keeps those of the run's checkpoints that a
    /// checkpoint of another run follows.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::Fenced`] if the run is not live, and [`StoreErrorKind::Invalid`] if the commit does not follow the
    /// run's last checkpoint, or has a difference or the parent's values without a parent.
    fn commit(&self, commit: Commit) -> StoreFuture<'_, Committed>;

    /// Writes progress of the step that a live run is at; a record with the same step and path is replaced.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::Fenced`] if the run is not live.
    fn record(&self, run: RunId, epoch: u64, progress: Vec<ProgressRecord>) -> StoreFuture<'_, ()>;

    /// Gives up a live run: it is queued, the first of its thread, and keeps its position. `consumed` is the time for which
    /// the owner has had it in all.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::Fenced`] if the run is not live.
    fn release_run(&self, run: RunId, epoch: u64, consumed: Duration) -> StoreFuture<'_, ()>;

    /// Takes over runs whose owner is not alive, and queued runs that were released: running ones get `crashes` + 1 and a
    /// new epoch, and stay running; queued ones get the new owner and a new epoch. [`may_resume`] limits the runs with
    /// crashes, counted over all runs and tasks of living owners in the store. A run that would reach [`POISON_CRASHES`]
    /// crashes fails instead, of the kind `Poison`, and is returned as failed. The first accepted run is taken first.
    ///
    /// A released run that had started is running afterwards, in a new epoch, if no other run of its thread is running.
    ///
    /// The time from a running run's start, last commit or takeover until the last renewal of its former owner, which is
    /// alive no more, is added to `consumed`; it is zero if that owner has left.
    fn take_over(&self, request: TakeOver) -> StoreFuture<'_, Vec<TakenRun>>;

    /// Requests a cancel. A queued run without a position is cancelled, or deleted by a rollback, at once.
    fn request_cancel(&self, run: RunId, kind: CancelKind) -> StoreFuture<'_, CancelRequested>;

    /// Returns a run.
    fn run(&self, run: RunId) -> StoreFuture<'_, Option<RunRow>>;

    /// Returns the runs that the filter selects, newest first.
    fn runs(&self, filter: RunFilter) -> StoreFuture<'_, Vec<RunRow>>;

    /// Deletes a run that has ended, or has not started. Its checkpoints stay. Any other one is [`Deleted::Busy`].
    fn delete_run(&self, run: RunId) -> StoreFuture<'_, Deleted>;

    // ---- Threads.

    /// Creates a thread. Returns the one that exists, if there is one, and whether it was created.
    fn create_thread(&self, thread: NewThread) -> StoreFuture<'_, (ThreadRow, bool)>;

    /// Returns a thread.
    fn thread(&self, thread: &ThreadId) -> StoreFuture<'_, Option<ThreadRow>>;

    /// Returns a page of the threads that the filter selects.
    fn threads(&self, filter: ThreadFilter) -> StoreFuture<'_, ThreadPage>;

    /// Sets the given fields of a thread's metadata; a field that is null is removed.
    fn patch_metadata(&self, thread: &ThreadId, patch: Map<String, Value>) -> StoreFuture<'_, Option<ThreadRow>>;

    /// Returns a checkpoint of a thread: the one with this id, or else the head.
    fn load(&self, thread: &ThreadId, at: Option<CheckpointId>) -> StoreFuture<'_, Option<CheckpointRow>>;

    /// Returns the checkpoints of all branches of a thread that the filter selects, newest first.
    fn history(&self, thread: &ThreadId, filter: HistoryFilter) -> StoreFuture<'_, Vec<CheckpointRow>>;

    /// Returns the questions of a thread in this state, or in any, oldest first.
    fn questions(&self, thread: &ThreadId, status: Option<QuestionStatus>) -> StoreFuture<'_, Vec<QuestionRow>>;

    /// Returns the progress of the step at the head of a thread, in the order of the paths.
    fn progress(&self, thread: &ThreadId) -> StoreFuture<'_, Vec<ProgressRecord>>;

    /// Makes a checkpoint outside of a run, which becomes the head. Nothing is written if the thread is busy, belongs to
    /// another graph, or has another head.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::Invalid`] if the parent is no checkpoint of the thread.
    fn edit(&self, edit: Edit) -> StoreFuture<'_, Edited>;

    /// Copies a thread, with all of its checkpoints under the same ids. Open questions get new ids; runs, other questions
    /// and progress are not copied. The copy of a thread that has an unfinished run is paused, or idle at the end. Returns
    /// `None` if the source does not exist.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::Invalid`] if the target exists.
    fn copy_thread(&self, from: &ThreadId, to: &ThreadId) -> StoreFuture<'_, Option<ThreadRow>>;

    /// Deletes a thread with its runs, checkpoints, questions and progress. A thread with a running run whose owner is
    /// alive is [`Deleted::Busy`]. Tasks of its runs stay.
    fn delete_thread(&self, thread: &ThreadId) -> StoreFuture<'_, Deleted>;

    /// Deletes all checkpoints of a thread but the newest `keep` of each branch, the head, those with open questions, and
    /// those that an unfinished run began at, follows or would be rolled back to. A kept one whose parent is deleted becomes
    /// a whole state without a parent. A branch ends at each checkpoint that is no parent. Returns how many were deleted.
    fn prune(&self, thread: &ThreadId, keep: usize) -> StoreFuture<'_, usize>;

    // ---- Durable tasks.

    /// Makes tasks, in order. A task whose id exists is [`Enqueued::Known`].
    ///
    /// [`KeyPolicy::Replace`] gives the newest pending task of the key all of the new one but its id; its attempts, crashes
    /// and budget start over. It requests a cancel of a running one in any case.
    fn enqueue(&self, tasks: Vec<NewTask>) -> StoreFuture<'_, Vec<Enqueued>>;

    /// Claims tasks that are due, and tasks of owners that are not alive (`crashes` + 1), if their key blocks none of them.
    /// A key blocks a task as long as a running task, or an unfinished one that was made earlier, has it; a schedule with
    /// [`Overlap::Queue`] blocks a task until the one of the last firing has ended.
    ///
    /// [`may_resume`] limits the tasks with crashes, counted over all runs and tasks of living owners in the store; a task
    /// that would reach [`POISON_CRASHES`] crashes fails instead. A task of a dead owner of which a cancel was requested is
    /// cancelled, and not claimed. The time from the claim until the last renewal of the dead owner is added to `consumed`.
    ///
    /// `next_due` leaves out the names without room, and the tasks that something else than their time holds back.
    fn claim(&self, claim: Claim) -> StoreFuture<'_, Claimed>;

    /// Ends an attempt of a task that is live. An attempt that ends sets the task's `crashes` to zero. A task of which a
    /// cancel was requested is cancelled instead of tried again.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::Fenced`] if the task is not live.
    fn finish_task(&self, finish: FinishTask) -> StoreFuture<'_, ()>;

    /// Gives up a live task: it is pending, or cancelled if that was requested.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::Fenced`] if the task is not live.
    fn release_task(&self, release: ReleaseTask) -> StoreFuture<'_, ()>;

    /// Cancels a pending task, or requests it of a running one; a running one whose owner is dead is cancelled at once.
    fn cancel_task(&self, task: StoredTaskId) -> StoreFuture<'_, TaskChanged>;

    /// Makes a failed task pending, due at once; its attempts and its budget start over.
    fn retry_task(&self, task: StoredTaskId) -> StoreFuture<'_, TaskChanged>;

    /// Deletes a task that has ended.
    fn delete_task(&self, task: StoredTaskId) -> StoreFuture<'_, TaskChanged>;

    /// Returns the tasks that the filter selects, newest first.
    fn tasks(&self, filter: StoredTaskFilter) -> StoreFuture<'_, Vec<TaskRow>>;

    /// Deletes the oldest ended tasks of each name beyond the limits. Returns how many were deleted.
    fn retain_tasks(&self, retention: TaskRetention) -> StoreFuture<'_, usize>;

    // ---- Schedules.

    /// Adds a schedule, or replaces its definition. The next due time of one that exists stays, unless the definition is
    /// another one.
    fn put_schedule(&self, schedule: ScheduleRow) -> StoreFuture<'_, ()>;

    /// Deletes a schedule. Returns whether there was one.
    fn delete_schedule(&self, name: &str) -> StoreFuture<'_, bool>;

    /// Returns all schedules, by name.
    fn schedules(&self) -> StoreFuture<'_, Vec<ScheduleRow>>;

    /// Fires a schedule, if its next due time is the expected one. The task gets the schedule's name. If the key of the task
    /// lets it be skipped, the firing is [`Fired::Skipped`]; if it replaces another one, that one is [`Fired::Made`].
    fn fire(&self, fire: Fire) -> StoreFuture<'_, Fired>;

    // ---- Items.

    /// Writes an item. One that has expired or was deleted is as good as none: its successor has version 1.
    fn put_item(&self, put: PutItem) -> StoreFuture<'_, PutOutcome>;

    /// Returns an item that has not expired.
    fn item(&self, namespace: &[String], key: &str) -> StoreFuture<'_, Option<ItemRow>>;

    /// Deletes an item. Returns whether there was one.
    fn delete_item(&self, namespace: &[String], key: &str) -> StoreFuture<'_, bool>;

    /// Returns the items that the filter selects and that have not expired.
    fn items(&self, filter: ItemFilter) -> StoreFuture<'_, Vec<ItemRow>>;

    /// Returns the namespaces that begin with `prefix` and have items, sorted.
    fn namespaces(&self, prefix: &[String]) -> StoreFuture<'_, Vec<Vec<String>>>;

    // ---- Changes.

    /// Returns the present time of the store's clock.
    fn now(&self) -> StoreFuture<'_, Timestamp>;

    /// Waits until something may have changed since the call that returned `since`, or `timeout` has passed. Returns the
    /// value for the next call; begin with zero. It is a hint, which may be early, late or lost: callers poll behind it.
    fn changes(&self, since: u64, timeout: Duration) -> StoreFuture<'_, u64>;
}

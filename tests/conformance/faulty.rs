//! [`Faulty`]: the store in memory with one planted fault.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

#[allow(clippy::wildcard_imports, reason = "the trait names nearly every type of the module")]
use agentflow::{RunId, store::*};
use serde_json::{Map, Value};
use tokio::task::yield_now;

/// A fault of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A write of an item ignores the expected version.
    LostUpdate,
    /// The tasks of a commit are made after its checkpoint.
    CommitInTwoParts,
    /// A commit is accepted in any epoch.
    IgnoredEpoch,
    /// A commit whose number is in use is carried out once more.
    RepeatedCommitAppliedTwice,
    /// A claim returns tasks that are claimed already.
    ClaimGivenTwice,
    /// The outcome of a former owner replaces that of its successor.
    OutcomeOverwritten,
    /// An edit ignores the expected head.
    HeadMovedWithoutCompare,
    /// An answer to a question that is not open begins a run.
    QuestionAnsweredTwice,
    /// Queued runs start in the order of their ids, which have the time of their machine.
    QueueOrderByClock,
    /// A pruning loses the state that the differences of the kept checkpoints start from.
    PruneBreaksDeltas,
    /// A branch begins with the state of its sibling.
    ForkSeesSibling,
    /// A rollback deletes copies of the thread that have checkpoints of the run.
    RollbackTakesFork,
    /// A task is due at once.
    IgnoredDueTime,
    /// A task has no key.
    IgnoredKey,
    /// A refused operation undoes those that are carried out with it.
    RefusalUndoesBatch,
    /// History is oldest first.
    HistoryOutOfOrder,
    /// A number that JSON does not have is written as null.
    NanAsNull,
    /// A living owner's runs are taken over.
    LeaseIgnored,
    /// A released run is as good as a crashed one.
    ReleaseIsACrash,
    /// A commit leaves the crashes as they are.
    CrashesNotForgotten,
}

/// The former operations that a faulty store remembers.
#[derive(Default)]
struct Notes {
    claimed: Vec<TaskRow>,
    overwritten: HashSet<StoredTaskId>,
    pruned: HashSet<ThreadId>,
    released: HashSet<RunId>,
    crashed: HashSet<RunId>,
    batch: Vec<(Vec<String>, String)>,
}

/// The store in memory with one planted fault. A clone is another handle.
#[derive(Clone)]
pub(crate) struct Faulty {
    pub(crate) store: MemoryStore,
    fault: Fault,
    notes: Arc<Mutex<Notes>>,
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fault.fmt(f)
    }
}

impl Faulty {
    pub(crate) fn new(fault: Fault) -> Self {
        Self { store: MemoryStore::new(), fault, notes: Arc::default() }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn note<T>(&self, write: impl FnOnce(&mut Notes) -> T) -> T {
        write(&mut self.notes.lock().unwrap())
    }

    async fn begin(&self, mut request: BeginRun) -> Result<Begun, StoreError> {
        let thread = request.run.thread.clone();
        let start = &mut request.start;
        if self.has(Fault::QuestionAnsweredTwice) {
            let open = self.store.questions(&thread, Some(QuestionStatus::Open)).await?;
            let known = self.store.questions(&thread, None).await?;
            let among = |rows: &[QuestionRow], id| rows.iter().any(|row| row.asked.id == id);
            start.answers.retain(|answer| among(&open, answer.question) || !among(&known, answer.question));
        }
        if self.has(Fault::ForkSeesSibling)
            && start.base != start.expected_head
            && let Some(head) = self.store.load(&thread, None).await?
        {
            start.checkpoints[0].values = NewValues::Snapshot(head.values);
        }
        if self.has(Fault::NanAsNull) {
            for checkpoint in &mut start.checkpoints {
                checkpoint.position = without_nan(&checkpoint.position);
                if let NewValues::Snapshot(state) = &mut checkpoint.values {
                    *state = without_nan(state);
                }
            }
        }
        self.store.begin_run(request).await
    }

    async fn start(&self, id: RunId, owner: OwnerId, start: RunStart) -> Result<Begun, StoreError> {
        let mut passed = Vec::new();
        if self.has(Fault::QueueOrderByClock)
            && let Some(own) = self.store.run(id).await?
        {
            let mut queued = RunFilter::default();
            (queued.thread, queued.status) = (Some(own.run.thread), Some(RunStatus::Queued));
            for row in self.store.runs(queued).await?.into_iter().rev() {
                if row.sequence < own.sequence && row.run.id > id {
                    self.store.delete_run(row.run.id).await?;
                    passed.push(row.run);
                }
            }
        }
        let begun = self.store.start_run(id, owner, start).await;
        for run in passed {
            self.store.begin_run(BeginRun::new(run, OnBusyThread::Queue, RunStart::default())).await?;
        }
        begun
    }

    async fn commit_one(&self, mut commit: Commit) -> Result<Committed, StoreError> {
        let row = self.store.run(commit.run).await?;
        if let Some(row) = &row {
            if self.has(Fault::IgnoredEpoch) {
                commit.epoch = row.epoch;
            }
            if self.has(Fault::RepeatedCommitAppliedTwice) && commit.number <= row.commit {
                (commit.number, commit.parent) = (row.commit + 1, row.last_checkpoint);
            }
        }
        let tasks = if self.has(Fault::CommitInTwoParts) { std::mem::take(&mut commit.tasks) } else { Vec::new() };
        let (run, rolls_back) = (commit.run, commit.end.as_ref().is_some_and(|end| end.rolls_back));
        let committed = self.store.commit(commit).await;
        if self.has(Fault::CommitInTwoParts) && committed.is_ok() {
            yield_now().await;
            self.store.enqueue(tasks).await?;
        }
        if self.has(Fault::RefusalUndoesBatch) && committed.is_err() {
            for (namespace, key) in self.note(|notes| std::mem::take(&mut notes.batch)) {
                self.store.delete_item(&namespace, &key).await?;
            }
        }
        if self.has(Fault::RollbackTakesFork) && rolls_back {
            let of = row.map(|row| row.run.thread);
            for thread in self.store.threads(ThreadFilter::default()).await?.threads {
                let history = self.store.history(&thread.id, HistoryFilter::default()).await?;
                if Some(&thread.id) != of.as_ref() && history.iter().any(|row| row.run == Some(run)) {
                    self.store.delete_thread(&thread.id).await?;
                }
            }
        }
        committed
    }

    /// Returns a checkpoint as the faulty store has it.
    fn checkpoint(&self, thread: &ThreadId, mut row: CheckpointRow) -> CheckpointRow {
        if row.parent.is_none() && row.step > -1 && self.note(|notes| notes.pruned.contains(thread)) {
            row.values = Stored::from(b"{}".to_vec());
        }
        row
    }

    async fn take(&self, request: TakeOver) -> Result<Vec<TakenRun>, StoreError> {
        if self.has(Fault::LeaseIgnored) {
            let mut running = RunFilter::default();
            running.status = Some(RunStatus::Running);
            for row in self.store.runs(running).await? {
                self.store.release_run(row.run.id, row.epoch, row.consumed).await?;
            }
        }
        let mut taken = self.store.take_over(request).await?;
        for taken in &mut taken {
            let id = taken.run.run.id;
            let released = self.note(|notes| notes.released.contains(&id));
            taken.run.crashes += u32::from(self.has(Fault::ReleaseIsACrash) && released);
            let is_second = !self.note(|notes| notes.crashed.insert(id));
            taken.run.crashes += u32::from(self.has(Fault::CrashesNotForgotten) && is_second && taken.run.crashes == 1);
        }
        Ok(taken)
    }
}

fn without_nan(stored: &Stored) -> Stored {
    let text = String::from_utf8_lossy(stored.json().unwrap()).replace("NaN", "null");
    Stored::from(text.into_bytes())
}

impl Store for Faulty {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    fn join(&self, owner: OwnerId, lease: Duration) -> StoreFuture<'_, ()> {
        self.store.join(owner, lease)
    }

    fn renew(&self, owner: OwnerId, lease: Duration) -> StoreFuture<'_, ()> {
        self.store.renew(owner, lease)
    }

    fn leave(&self, owner: OwnerId) -> StoreFuture<'_, ()> {
        self.store.leave(owner)
    }

    fn begin_run(&self, request: BeginRun) -> StoreFuture<'_, Begun> {
        Box::pin(self.begin(request))
    }

    fn start_run(&self, run: RunId, owner: OwnerId, start: RunStart) -> StoreFuture<'_, Begun> {
        Box::pin(self.start(run, owner, start))
    }

    fn commit(&self, commit: Commit) -> StoreFuture<'_, Committed> {
        Box::pin(self.commit_one(commit))
    }

    fn record(&self, run: RunId, epoch: u64, progress: Vec<ProgressRecord>) -> StoreFuture<'_, ()> {
        self.store.record(run, epoch, progress)
    }

    fn release_run(&self, run: RunId, epoch: u64, consumed: Duration) -> StoreFuture<'_, ()> {
        self.note(|notes| notes.released.insert(run));
        self.store.release_run(run, epoch, consumed)
    }

    fn take_over(&self, request: TakeOver) -> StoreFuture<'_, Vec<TakenRun>> {
        Box::pin(self.take(request))
    }

    fn request_cancel(&self, run: RunId, kind: CancelKind) -> StoreFuture<'_, CancelRequested> {
        self.store.request_cancel(run, kind)
    }

    fn run(&self, run: RunId) -> StoreFuture<'_, Option<RunRow>> {
        self.store.run(run)
    }

    fn runs(&self, filter: RunFilter) -> StoreFuture<'_, Vec<RunRow>> {
        self.store.runs(filter)
    }

    fn delete_run(&self, run: RunId) -> StoreFuture<'_, Deleted> {
        self.store.delete_run(run)
    }

    fn create_thread(&self, thread: NewThread) -> StoreFuture<'_, (ThreadRow, bool)> {
        self.store.create_thread(thread)
    }

    fn thread(&self, thread: &ThreadId) -> StoreFuture<'_, Option<ThreadRow>> {
        self.store.thread(thread)
    }

    fn threads(&self, filter: ThreadFilter) -> StoreFuture<'_, ThreadPage> {
        self.store.threads(filter)
    }

    fn patch_metadata(&self, thread: &ThreadId, patch: Map<String, Value>) -> StoreFuture<'_, Option<ThreadRow>> {
        self.store.patch_metadata(thread, patch)
    }

    fn load(&self, thread: &ThreadId, at: Option<CheckpointId>) -> StoreFuture<'_, Option<CheckpointRow>> {
        let thread = thread.clone();
        Box::pin(async move {
            let row = self.store.load(&thread, at).await?;
            Ok(row.map(|row| self.checkpoint(&thread, row)))
        })
    }

    fn history(&self, thread: &ThreadId, filter: HistoryFilter) -> StoreFuture<'_, Vec<CheckpointRow>> {
        let thread = thread.clone();
        Box::pin(async move {
            let rows = self.store.history(&thread, filter).await?;
            let mut rows: Vec<_> = rows.into_iter().map(|row| self.checkpoint(&thread, row)).collect();
            if self.has(Fault::HistoryOutOfOrder) {
                rows.reverse();
            }
            Ok(rows)
        })
    }

    fn questions(&self, thread: &ThreadId, status: Option<QuestionStatus>) -> StoreFuture<'_, Vec<QuestionRow>> {
        self.store.questions(thread, status)
    }

    fn progress(&self, thread: &ThreadId) -> StoreFuture<'_, Vec<ProgressRecord>> {
        self.store.progress(thread)
    }

    fn edit(&self, mut edit: Edit) -> StoreFuture<'_, Edited> {
        Box::pin(async move {
            if self.has(Fault::HeadMovedWithoutCompare) {
                let head = self.store.thread(&edit.thread).await?.and_then(|thread| thread.head);
                (edit.expected_head, edit.parent) = (head, head);
            }
            self.store.edit(edit).await
        })
    }

    fn copy_thread(&self, from: &ThreadId, to: &ThreadId) -> StoreFuture<'_, Option<ThreadRow>> {
        self.store.copy_thread(from, to)
    }

    fn delete_thread(&self, thread: &ThreadId) -> StoreFuture<'_, Deleted> {
        self.store.delete_thread(thread)
    }

    fn prune(&self, thread: &ThreadId, keep: usize) -> StoreFuture<'_, usize> {
        if self.has(Fault::PruneBreaksDeltas) {
            self.note(|notes| notes.pruned.insert(thread.clone()));
        }
        self.store.prune(thread, keep)
    }

    fn enqueue(&self, mut tasks: Vec<NewTask>) -> StoreFuture<'_, Vec<Enqueued>> {
        for task in &mut tasks {
            if self.has(Fault::IgnoredDueTime) {
                (task.delay, task.due) = (Duration::ZERO, None);
            }
            if self.has(Fault::IgnoredKey) {
                task.key = None;
            }
        }
        self.store.enqueue(tasks)
    }

    fn claim(&self, claim: Claim) -> StoreFuture<'_, Claimed> {
        Box::pin(async move {
            let names: Vec<_> = claim.names.iter().map(|(name, _)| name.clone()).collect();
            let mut claimed = self.store.claim(claim).await?;
            if self.has(Fault::ClaimGivenTwice) {
                let new = claimed.tasks.clone();
                self.note(|notes| {
                    claimed.tasks.extend(notes.claimed.iter().filter(|row| names.contains(&row.task.name)).cloned());
                    notes.claimed = new;
                });
            }
            Ok(claimed)
        })
    }

    fn finish_task(&self, finish: FinishTask) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let task = finish.task;
            let finished = self.store.finish_task(finish).await;
            if self.has(Fault::OutcomeOverwritten) && finished.is_err() {
                self.note(|notes| notes.overwritten.insert(task));
                return Ok(());
            }
            finished
        })
    }

    fn release_task(&self, release: ReleaseTask) -> StoreFuture<'_, ()> {
        self.store.release_task(release)
    }

    fn cancel_task(&self, task: StoredTaskId) -> StoreFuture<'_, TaskChanged> {
        self.store.cancel_task(task)
    }

    fn retry_task(&self, task: StoredTaskId) -> StoreFuture<'_, TaskChanged> {
        self.store.retry_task(task)
    }

    fn delete_task(&self, task: StoredTaskId) -> StoreFuture<'_, TaskChanged> {
        self.store.delete_task(task)
    }

    fn tasks(&self, filter: StoredTaskFilter) -> StoreFuture<'_, Vec<TaskRow>> {
        Box::pin(async move {
            let mut rows = self.store.tasks(filter).await?;
            for row in &mut rows {
                if self.note(|notes| notes.overwritten.contains(&row.task.id)) {
                    row.status = TaskStatus::Failed;
                }
            }
            Ok(rows)
        })
    }

    fn retain_tasks(&self, retention: TaskRetention) -> StoreFuture<'_, usize> {
        self.store.retain_tasks(retention)
    }

    fn put_schedule(&self, schedule: ScheduleRow) -> StoreFuture<'_, ()> {
        self.store.put_schedule(schedule)
    }

    fn delete_schedule(&self, name: &str) -> StoreFuture<'_, bool> {
        self.store.delete_schedule(name)
    }

    fn schedules(&self) -> StoreFuture<'_, Vec<ScheduleRow>> {
        self.store.schedules()
    }

    fn fire(&self, fire: Fire) -> StoreFuture<'_, Fired> {
        self.store.fire(fire)
    }

    fn put_item(&self, mut put: PutItem) -> StoreFuture<'_, PutOutcome> {
        Box::pin(async move {
            if self.has(Fault::LostUpdate) {
                put.expected_version = None;
            }
            let place = (put.namespace.clone(), put.key.clone());
            let written = self.store.put_item(put).await;
            if self.has(Fault::RefusalUndoesBatch) {
                self.note(|notes| notes.batch = vec![place]);
                yield_now().await;
                self.note(|notes| notes.batch.clear());
            }
            written
        })
    }

    fn item(&self, namespace: &[String], key: &str) -> StoreFuture<'_, Option<ItemRow>> {
        self.store.item(namespace, key)
    }

    fn delete_item(&self, namespace: &[String], key: &str) -> StoreFuture<'_, bool> {
        self.store.delete_item(namespace, key)
    }

    fn items(&self, filter: ItemFilter) -> StoreFuture<'_, Vec<ItemRow>> {
        self.store.items(filter)
    }

    fn namespaces(&self, prefix: &[String]) -> StoreFuture<'_, Vec<Vec<String>>> {
        self.store.namespaces(prefix)
    }

    fn now(&self) -> StoreFuture<'_, Timestamp> {
        self.store.now()
    }

    fn changes(&self, since: u64, timeout: Duration) -> StoreFuture<'_, u64> {
        self.store.changes(since, timeout)
    }
}

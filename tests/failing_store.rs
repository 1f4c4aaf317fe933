//! [`FailingStore`]: the store in memory, whose operations fail when a test says so.

use std::{
    future::ready,
    sync::{Arc, Mutex},
    time::Duration,
};

#[allow(clippy::wildcard_imports, reason = "the trait names nearly every type of the module")]
use agentflow::{RunId, store::*};
use serde_json::{Map, Value};

/// The store in memory, whose operations fail when a test says so. A clone is the same store.
#[derive(Clone, Debug, Default)]
pub(crate) struct FailingStore {
    store: MemoryStore,
    failure: Arc<Mutex<Option<(&'static str, StoreErrorKind)>>>,
}

impl FailingStore {
    /// Makes the operation of this name fail from now on; `""` stands for all operations.
    pub(crate) fn fail(&self, operation: &'static str, kind: StoreErrorKind) {
        *self.failure.lock().unwrap() = Some((operation, kind));
    }

    /// Makes all operations succeed from now on.
    pub(crate) fn recover(&self) {
        *self.failure.lock().unwrap() = None;
    }

    fn error(&self, operation: &'static str) -> Option<StoreError> {
        let failure = self.failure.lock().unwrap();
        let (_, kind) = failure.as_ref().filter(|(failing, _)| failing.is_empty() || *failing == operation)?;
        Some(StoreError::new(operation, kind.clone()))
    }
}

macro_rules! forward {
    ($($name:ident($($arg:ident: $type:ty),*) -> $answer:ty;)*) => {$(
        fn $name(&self $(, $arg: $type)*) -> StoreFuture<'_, $answer> {
            match self.error(stringify!($name)) {
                Some(error) => Box::pin(ready(Err(error))),
                None => self.store.$name($($arg),*),
            }
        }
    )*};
}

impl Store for FailingStore {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    forward! {
        join(owner: OwnerId, lease: Duration) -> ();
        renew(owner: OwnerId, lease: Duration) -> ();
        leave(owner: OwnerId) -> ();
        begin_run(request: BeginRun) -> Begun;
        start_run(run: RunId, owner: OwnerId, start: RunStart) -> Begun;
        commit(commit: Commit) -> Committed;
        record(run: RunId, epoch: u64, progress: Vec<ProgressRecord>) -> ();
        release_run(run: RunId, epoch: u64, consumed: Duration) -> ();
        take_over(request: TakeOver) -> Vec<TakenRun>;
        request_cancel(run: RunId, kind: CancelKind) -> CancelRequested;
        run(run: RunId) -> Option<RunRow>;
        runs(filter: RunFilter) -> Vec<RunRow>;
        delete_run(run: RunId) -> Deleted;
        create_thread(thread: NewThread) -> (ThreadRow, bool);
        thread(thread: &ThreadId) -> Option<ThreadRow>;
        threads(filter: ThreadFilter) -> ThreadPage;
        patch_metadata(thread: &ThreadId, patch: Map<String, Value>) -> Option<ThreadRow>;
        load(thread: &ThreadId, at: Option<CheckpointId>) -> Option<CheckpointRow>;
        history(thread: &ThreadId, filter: HistoryFilter) -> Vec<CheckpointRow>;
        questions(thread: &ThreadId, status: Option<QuestionStatus>) -> Vec<QuestionRow>;
        progress(thread: &ThreadId) -> Vec<ProgressRecord>;
        edit(edit: Edit) -> Edited;
        copy_thread(from: &ThreadId, to: &ThreadId) -> Option<ThreadRow>;
        delete_thread(thread: &ThreadId) -> Deleted;
        prune(thread: &ThreadId, keep: usize) -> usize;
        enqueue(tasks: Vec<NewTask>) -> Vec<Enqueued>;
        claim(claim: Claim) -> Claimed;
        finish_task(finish: FinishTask) -> ();
        release_task(release: ReleaseTask) -> ();
        cancel_task(task: StoredTaskId) -> TaskChanged;
        retry_task(task: StoredTaskId) -> TaskChanged;
        delete_task(task: StoredTaskId) -> TaskChanged;
        tasks(filter: StoredTaskFilter) -> Vec<TaskRow>;
        retain_tasks(retention: TaskRetention) -> usize;
        put_schedule(schedule: ScheduleRow) -> ();
        delete_schedule(name: &str) -> bool;
        schedules() -> Vec<ScheduleRow>;
        fire(fire: Fire) -> Fired;
        put_item(put: PutItem) -> PutOutcome;
        item(namespace: &[String], key: &str) -> Option<ItemRow>;
        delete_item(namespace: &[String], key: &str) -> bool;
        items(filter: ItemFilter) -> Vec<ItemRow>;
        namespaces(prefix: &[String]) -> Vec<Vec<String>>;
        now() -> Timestamp;
        changes(since: u64, timeout: Duration) -> u64;
    }
}

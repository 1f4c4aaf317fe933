//! [`MemoryStore`]: a store in memory.

mod begin;
mod checkpoints;
mod clock;
mod commit;
mod data;
mod fields;
mod items;
mod owners;
mod questions;
mod run_table;
mod runs;
mod schedules;
mod suspects;
mod takeover;
mod tasks;
mod threads;
mod trash;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use serde_json::{Map, Value};
use tokio::sync::watch;

use self::data::{Data, Limits};
use super::{
    BeginRun, Begun, CancelKind, CancelRequested, Capabilities, CheckpointId, CheckpointRow, Claim, Claimed, Commit,
    Committed, Deleted, Edit, Edited, Enqueued, FinishTask, Fire, Fired, HistoryFilter, ItemFilter, ItemRow, NewTask,
    NewThread, OwnerId, ProgressRecord, PutItem, PutOutcome, QuestionRow, QuestionStatus, ReleaseTask, RunFilter,
    RunRow, RunStart, ScheduleRow, Store, StoreError, StoreFuture, StoredTaskFilter, StoredTaskId, TakeOver, TakenRun,
    TaskChanged, TaskRetention, TaskRow, ThreadFilter, ThreadId, ThreadPage, ThreadRow, Timestamp,
};
use crate::{
    panics::catch_panic,
    run_id::RunId,
    sync::{Mutex, guard_waker},
};

/// A store in memory, which keeps JSON as the other stores do. It ends with the process.
///
/// A clone is another handle on the same data. An owner is alive from its `join` on until it leaves or its lease has run
/// out; a handle that is dropped changes nothing.
///
/// Its clock starts at the system's time and goes on with tokio's clock, which a test can pause. [`advance`](Self::advance)
/// moves it further.
///
/// ```
/// use std::time::Duration;
///
/// use agentflow::store::{MemoryStore, OwnerId, Store};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let store = MemoryStore::new();
/// let owner = OwnerId::new();
/// store.join(owner, Duration::from_secs(30)).await?;
///
/// store.advance(Duration::from_secs(60));
/// store.renew(owner, Duration::from_secs(30)).await?;
/// store.leave(owner).await?;
/// assert!(store.renew(owner, Duration::from_secs(30)).await.is_err());
/// # Ok::<_, agentflow::store::StoreError>(())
/// # })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

struct Shared {
    data: Mutex<Data>,
    /// The number of changes.
    changes: watch::Sender<u64>,
    keeps_values: bool,
}

impl MemoryStore {
    /// The number of checkpoints that the default store keeps of a thread.
    const CHECKPOINTS: usize = 100;

    /// The number of threads that the default store keeps.
    const THREADS: usize = 10_000;

    /// Creates an empty store, which keeps JSON, and everything until it is deleted.
    #[must_use]
    pub fn new() -> Self {
        Self::with(false, None)
    }

    /// Creates the store of a graph without an explicit one. It keeps values as they are, 100 checkpoints of a thread and
    /// 10,000 threads.
    #[must_use]
    pub(crate) fn of_values() -> Self {
        Self::with(true, Some(Limits::new(Self::CHECKPOINTS, Self::THREADS)))
    }

    fn with(keeps_values: bool, limits: Option<Limits>) -> Self {
        let (changes, _) = watch::channel(0);
        Self { shared: Arc::new(Shared { data: Mutex::new(Data::new(limits)), changes, keeps_values }) }
    }

    /// Moves the store's clock forward.
    pub fn advance(&self, duration: Duration) {
        self.shared.data.lock().clock.advance(duration);
        self.announce();
    }

    /// Reads the data.
    fn read<'a, T: Send + 'a>(&'a self, read: impl FnOnce(&Data, Timestamp) -> T + Send + 'a) -> StoreFuture<'a, T> {
        Box::pin(async move {
            let data = self.shared.data.lock();
            let now = data.clock.now();
            Ok(read(&data, now))
        })
    }

    /// Carries out an operation, and announces it.
    fn write<'a, R: Send + 'a, T: Send + 'a>(
        &'a self,
        request: R,
        operation: impl FnOnce(&mut Data, &R, Timestamp) -> Result<T, StoreError> + Send + 'a,
    ) -> StoreFuture<'a, T> {
        self.write_if(request, operation, |_| true)
    }

    /// Carries out an operation, and announces it if its answer says that it has changed anything. Else two waiting callers
    /// would wake each other for ever.
    ///
    /// The request and what the operation removes may hold values of the user. They are dropped when the lock is free.
    fn write_if<'a, R: Send + 'a, T: Send + 'a>(
        &'a self,
        request: R,
        operation: impl FnOnce(&mut Data, &R, Timestamp) -> Result<T, StoreError> + Send + 'a,
        is_change: fn(&T) -> bool,
    ) -> StoreFuture<'a, T> {
        Box::pin(async move {
            let (answer, trash) = {
                let mut data = self.shared.data.lock();
                let now = data.clock.tick();
                let answer = operation(&mut data, &request, now);
                (answer, std::mem::take(&mut data.trash))
            };
            trash.empty();
            catch_panic(|| drop(request));
            if answer.as_ref().is_ok_and(is_change) {
                self.announce();
            }
            answer
        })
    }

    fn announce(&self) {
        self.shared.changes.send_modify(|changes| *changes += 1);
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("keeps_values", &self.shared.keeps_values).finish_non_exhaustive()
    }
}

impl Store for MemoryStore {
    fn capabilities(&self) -> Capabilities {
        let keeps_values = self.shared.keeps_values;
        // Several apps of the process may share what is kept as JSON. The default store belongs to one app.
        Capabilities { keeps_values, is_shared: !keeps_values, is_durable: false }
    }

    fn join(&self, owner: OwnerId, lease: Duration) -> StoreFuture<'_, ()> {
        let join = move |data: &mut Data, (): &(), now| {
            data.owners.join(owner, lease, now);
            Ok(())
        };
        self.write_if((), join, |()| false)
    }

    fn renew(&self, owner: OwnerId, lease: Duration) -> StoreFuture<'_, ()> {
        let renew = move |data: &mut Data, (): &(), now| {
            let is_there = data.owners.renew(owner, lease, now);
            if is_there { Ok(()) } else { Err(StoreError::fenced("renew")) }
        };
        self.write_if((), renew, |()| false)
    }

    fn leave(&self, owner: OwnerId) -> StoreFuture<'_, ()> {
        self.write((), move |data, (), _| {
            data.owners.leave(owner);
            Ok(())
        })
    }

    fn begin_run(&self, request: BeginRun) -> StoreFuture<'_, Begun> {
        self.write_if(request, Data::begin_run, |begun| matches!(begun, Begun::Running(_) | Begun::Queued { .. }))
    }

    fn start_run(&self, run: RunId, owner: OwnerId, start: RunStart) -> StoreFuture<'_, Begun> {
        let start_run = move |data: &mut Data, start: &RunStart, now| data.start_run(run, owner, start, now);
        self.write_if(start, start_run, |begun| matches!(begun, Begun::Running(_)))
    }

    fn commit(&self, commit: Commit) -> StoreFuture<'_, Committed> {
        self.write(commit, Data::commit)
    }

    fn record(&self, run: RunId, epoch: u64, progress: Vec<ProgressRecord>) -> StoreFuture<'_, ()> {
        self.write(progress, move |data, progress, _| data.record(run, epoch, progress))
    }

    fn release_run(&self, run: RunId, epoch: u64, consumed: Duration) -> StoreFuture<'_, ()> {
        self.write((), move |data, (), now| data.release_run(run, epoch, consumed, now))
    }

    fn take_over(&self, request: TakeOver) -> StoreFuture<'_, Vec<TakenRun>> {
        self.write_if(request, |data, request, now| Ok(data.take_over(request, now)), |taken| !taken.is_empty())
    }

    fn request_cancel(&self, run: RunId, kind: CancelKind) -> StoreFuture<'_, CancelRequested> {
        self.write((), move |data, (), now| Ok(data.request_cancel(run, kind, now)))
    }

    fn run(&self, run: RunId) -> StoreFuture<'_, Option<RunRow>> {
        self.read(move |data, _| data.runs.get(run).map(|run| run.row.clone()))
    }

    fn runs(&self, filter: RunFilter) -> StoreFuture<'_, Vec<RunRow>> {
        self.read(move |data, _| data.runs(&filter))
    }

    fn delete_run(&self, run: RunId) -> StoreFuture<'_, Deleted> {
        self.write((), move |data, (), _| Ok(data.delete_run(run)))
    }

    fn create_thread(&self, thread: NewThread) -> StoreFuture<'_, (ThreadRow, bool)> {
        self.write(thread, |data, thread, now| Ok(data.create_thread(thread, now)))
    }

    fn thread(&self, thread: &ThreadId) -> StoreFuture<'_, Option<ThreadRow>> {
        let thread = thread.clone();
        self.read(move |data, now| data.thread_row(&thread, now))
    }

    fn threads(&self, filter: ThreadFilter) -> StoreFuture<'_, ThreadPage> {
        self.read(move |data, now| data.list_threads(&filter, now))
    }

    fn patch_metadata(&self, thread: &ThreadId, patch: Map<String, Value>) -> StoreFuture<'_, Option<ThreadRow>> {
        let thread = thread.clone();
        self.write(patch, move |data, patch, now| Ok(data.patch_metadata(&thread, patch, now)))
    }

    fn load(&self, thread: &ThreadId, at: Option<CheckpointId>) -> StoreFuture<'_, Option<CheckpointRow>> {
        let thread = thread.clone();
        self.read(move |data, _| {
            let thread = data.threads.get(&thread)?;
            thread.checkpoints.get(at.or(thread.head)?).cloned()
        })
    }

    fn history(&self, thread: &ThreadId, filter: HistoryFilter) -> StoreFuture<'_, Vec<CheckpointRow>> {
        let thread = thread.clone();
        self.read(move |data, _| data.history(&thread, &filter))
    }

    fn questions(&self, thread: &ThreadId, status: Option<QuestionStatus>) -> StoreFuture<'_, Vec<QuestionRow>> {
        let thread = thread.clone();
        self.read(move |data, _| {
            let questions = data.threads.get(&thread).into_iter().flat_map(|thread| thread.questions.iter());
            questions.filter(|row| status.is_none_or(|status| status == row.status)).cloned().collect()
        })
    }

    fn progress(&self, thread: &ThreadId) -> StoreFuture<'_, Vec<ProgressRecord>> {
        let thread = thread.clone();
        self.read(move |data, _| data.threads.get(&thread).map(|thread| thread.progress.records()).unwrap_or_default())
    }

    fn edit(&self, edit: Edit) -> StoreFuture<'_, Edited> {
        self.write_if(edit, Data::edit, |edited| matches!(edited, Edited::Made(_)))
    }

    fn copy_thread(&self, from: &ThreadId, to: &ThreadId) -> StoreFuture<'_, Option<ThreadRow>> {
        self.write((from.clone(), to.clone()), |data, (from, to), now| data.copy_thread(from, to, now))
    }

    fn delete_thread(&self, thread: &ThreadId) -> StoreFuture<'_, Deleted> {
        self.write(thread.clone(), |data, thread, now| Ok(data.delete_thread(thread, now)))
    }

    fn prune(&self, thread: &ThreadId, keep: usize) -> StoreFuture<'_, usize> {
        self.write(thread.clone(), move |data, thread, _| Ok(data.prune(thread, keep)))
    }

    fn enqueue(&self, tasks: Vec<NewTask>) -> StoreFuture<'_, Vec<Enqueued>> {
        self.write(tasks, |data, tasks, now| Ok(data.tasks.enqueue(tasks, &data.owners, now)))
    }

    fn claim(&self, claim: Claim) -> StoreFuture<'_, Claimed> {
        let take = |data: &mut Data, claim: &Claim, now| {
            let suspects = data.suspects(now);
            Ok(data.tasks.claim(claim, suspects, &data.owners, now))
        };
        self.write_if(claim, take, |claimed| !claimed.tasks.is_empty() || !claimed.parked.is_empty())
    }

    fn finish_task(&self, finish: FinishTask) -> StoreFuture<'_, ()> {
        self.write(finish, |data, finish, now| data.tasks.finish(finish, now))
    }

    fn release_task(&self, release: ReleaseTask) -> StoreFuture<'_, ()> {
        self.write(release, |data, release, now| data.tasks.release(release, now))
    }

    fn cancel_task(&self, task: StoredTaskId) -> StoreFuture<'_, TaskChanged> {
        self.write((), move |data, (), now| Ok(data.tasks.cancel(task, &data.owners, now)))
    }

    fn retry_task(&self, task: StoredTaskId) -> StoreFuture<'_, TaskChanged> {
        self.write((), move |data, (), now| Ok(data.tasks.retry(task, now)))
    }

    fn delete_task(&self, task: StoredTaskId) -> StoreFuture<'_, TaskChanged> {
        self.write((), move |data, (), _| Ok(data.tasks.delete(task)))
    }

    fn tasks(&self, filter: StoredTaskFilter) -> StoreFuture<'_, Vec<TaskRow>> {
        self.read(move |data, _| data.tasks.list(&filter))
    }

    fn retain_tasks(&self, retention: TaskRetention) -> StoreFuture<'_, usize> {
        self.write_if((), move |data, (), _| Ok(data.tasks.retain(retention)), |count| *count > 0)
    }

    fn put_schedule(&self, schedule: ScheduleRow) -> StoreFuture<'_, ()> {
        self.write(schedule, |data, schedule, _| {
            data.schedules.put(schedule);
            Ok(())
        })
    }

    fn delete_schedule(&self, name: &str) -> StoreFuture<'_, bool> {
        self.write(name.to_owned(), |data, name, _| Ok(data.schedules.0.remove(&**name).is_some()))
    }

    fn schedules(&self) -> StoreFuture<'_, Vec<ScheduleRow>> {
        self.read(|data, _| data.schedules.0.values().cloned().collect())
    }

    fn fire(&self, fire: Fire) -> StoreFuture<'_, Fired> {
        let make = |data: &mut Data, fire: &Fire, now| {
            let Data { schedules, tasks, owners, .. } = data;
            Ok(schedules.fire(fire, tasks, owners, now))
        };
        self.write_if(fire, make, |fired| !matches!(fired, Fired::NotDue))
    }

    fn put_item(&self, put: PutItem) -> StoreFuture<'_, PutOutcome> {
        self.write(put, |data, put, now| Ok(data.items.put(put, now)))
    }

    fn item(&self, namespace: &[String], key: &str) -> StoreFuture<'_, Option<ItemRow>> {
        let place = (namespace.to_vec(), key.to_owned());
        self.read(move |data, now| data.items.get(&place.0, &place.1, now))
    }

    fn delete_item(&self, namespace: &[String], key: &str) -> StoreFuture<'_, bool> {
        let place = (namespace.to_vec(), key.to_owned());
        self.write(place, |data, (namespace, key), now| Ok(data.items.delete_present(namespace, key, now)))
    }

    fn items(&self, filter: ItemFilter) -> StoreFuture<'_, Vec<ItemRow>> {
        self.read(move |data, now| data.items.list(&filter, now))
    }

    fn namespaces(&self, prefix: &[String]) -> StoreFuture<'_, Vec<Vec<String>>> {
        let prefix = prefix.to_vec();
        self.read(move |data, now| data.items.namespaces(&prefix, now))
    }

    fn now(&self) -> StoreFuture<'_, Timestamp> {
        self.read(|_, now| now)
    }

    fn changes(&self, since: u64, timeout: Duration) -> StoreFuture<'_, u64> {
        Box::pin(async move {
            let mut changes = self.shared.changes.subscribe();
            let wait = guard_waker(changes.wait_for(|number| *number != since));
            // The sender lives as long as this handle, so the wait ends by a change or by the timeout.
            drop(tokio::time::timeout(timeout, wait).await);
            Ok(*self.shared.changes.borrow())
        })
    }
}

//! A [store](agentflow::store) of agentflow in one SQLite file: threads, checkpoints, questions, durable tasks and items
//! outlive the process, and no server is needed.
//!
//! ```
//! use agentflow::store::{NewThread, Store};
//! use agentflow_sqlite::SqliteStore;
//!
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("app.db");
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let store = SqliteStore::open(&path)?;
//! let (thread, is_new) = store.create_thread(NewThread::new("case-17".parse()?, "mail".into())).await?;
//! assert!(is_new && thread.head.is_none());
//! store.close().await?;
//!
//! let store = SqliteStore::open(&path)?;
//! assert!(store.thread(&"case-17".parse()?).await?.is_some());
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! # Files
//!
//! Beside `app.db`, SQLite keeps a log, `app.db-wal`, and an index of it, `app.db-shm`; a copy of the file alone is not a
//! backup while the store is open. Each owner, which is one opening by an app, has a lock file `app.db-owner-<id>`. All
//! files can be read and written only by the user who made them.
//!
//! Several processes on one machine can use the same file. It must not be on a network file system, whose locks do not
//! work. A crate that depends on this one is built with a C compiler, because SQLite is a part of it.
//!
//! # Guarantees
//!
//! - **What was acknowledged outlives the process**, however it dies. With [`Synchronous::Normal`], the default, a power
//!   loss may take the newest commits away; what is left is a state that the store had. [`Synchronous::Full`] keeps
//!   them, at the price of one flush of the disk for each transaction.
//! - **An owner is alive as long as its process holds the lock of its file.** The operating system releases the lock
//!   however the process dies, so that another process takes over at once; neither clocks nor process numbers are
//!   asked. A process that is stopped stays the owner.
//! - **Operations that wait for each other share a transaction**, each in a savepoint of its own, so that one that is
//!   refused undoes no other.
//! - A file that another process has locked for longer than the [busy timeout](SqliteOptions::busy_timeout) gives an
//!   error that [may pass](agentflow::store::StoreError::may_pass). A full disk, a file that cannot be written to, one that
//!   is corrupt and one of a newer version have kinds of their own.

mod checkpoints;
mod claims;
mod database;
mod failure;
mod items;
mod owners;
mod runs;
mod schedules;
mod suspects;
mod takeover;
mod tasks;
mod threads;
mod transaction;
mod value;
mod worker;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use agentflow::{
    RunId,
    store::{
        BeginRun, Begun, CancelKind, CancelRequested, Capabilities, CheckpointId, CheckpointRow, Claim, Claimed,
        Commit, Committed, Deleted, Edit, Edited, Enqueued, FinishTask, Fire, Fired, HistoryFilter, ItemFilter,
        ItemRow, NewTask, NewThread, OwnerId, ProgressRecord, PutItem, PutOutcome, QuestionRow, QuestionStatus,
        ReleaseTask, RunFilter, RunRow, RunStart, ScheduleRow, Store, StoreError, StoreFuture, StoredTaskFilter,
        StoredTaskId, TakeOver, TakenRun, TaskChanged, TaskRetention, TaskRow, ThreadFilter, ThreadId, ThreadPage,
        ThreadRow, Timestamp,
    },
};
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    database::Settings,
    failure::Failure,
    transaction::Transaction,
    worker::{Shared, Workers},
};

/// The time between two looks for changes that another process has made.
const POLL: Duration = Duration::from_millis(500);

/// A store in one SQLite file. A clone is the same store.
///
/// The threads of the store end, and the locks of its owners are released, when the last clone is dropped.
#[derive(Clone)]
pub struct SqliteStore {
    path: Arc<Path>,
    workers: Arc<Workers>,
    shared: Arc<Shared>,
}

/// The durability of a commit when the machine, and not only the process, dies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Synchronous {
    /// A power loss may take the newest commits away. What is left is consistent.
    #[default]
    Normal,
    /// Acknowledged writes survive a power loss.
    Full,
}

/// The options of a [`SqliteStore`].
///
/// ```
/// use std::time::Duration;
///
/// use agentflow_sqlite::{SqliteStore, Synchronous};
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("app.db");
/// let store = SqliteStore::options()
///     .synchronous(Synchronous::Full)
///     .busy_timeout(Duration::from_secs(1))
///     .open(&path)?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "options open nothing by themselves"]
pub struct SqliteOptions {
    synchronous: Synchronous,
    busy_timeout: Duration,
    max_pages: Option<u32>,
}

impl SqliteOptions {
    /// Sets the durability of a commit. The default is [`Synchronous::Normal`].
    pub fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// Sets the time for which an operation waits for another process that writes, until it fails with an error that may
    /// pass. The default is 5 seconds.
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// Limits the size of the file, as a full disk does.
    #[doc(hidden)]
    pub fn max_pages(mut self, pages: u32) -> Self {
        self.max_pages = Some(pages);
        self
    }

    /// Opens the file, or creates it.
    ///
    /// It blocks the thread for as long as it takes to open a file, and for at most the busy timeout if another process
    /// has locked it.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::TooNew`](agentflow::store::StoreErrorKind::TooNew) for a file of a newer version, which is left as it
    /// is; `Corrupt`, `ReadOnly`, `Full` and `Unavailable` as they say; `Invalid` for a database of another program.
    pub fn open(self, path: impl AsRef<Path>) -> Result<SqliteStore, StoreError> {
        let open = || -> Result<SqliteStore, Failure> {
            // The process may change its working directory later.
            let path: PathBuf = std::path::absolute(path.as_ref())?;
            let Self { synchronous, busy_timeout, max_pages } = self;
            let settings = Settings { path: path.clone(), synchronous, busy_timeout, max_pages };
            let (workers, shared) = Workers::start(&settings)?;
            Ok(SqliteStore { path: path.into(), workers: Arc::new(workers), shared })
        };
        open().map_err(|failure| failure.into_error("open"))
    }
}

impl SqliteStore {
    /// Opens a file, or creates it, with the default [options](SqliteOptions).
    ///
    /// # Errors
    ///
    /// As [`SqliteOptions::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::options().open(path)
    }

    /// Returns the default options.
    pub fn options() -> SqliteOptions {
        SqliteOptions { synchronous: Synchronous::Normal, busy_timeout: Duration::from_secs(5), max_pages: None }
    }

    /// Returns the path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the clock of this store forward, for tests.
    #[doc(hidden)]
    pub fn advance_clock(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        // No other data depends on the offset, so that no order has to be established.
        self.shared.clock_offset.fetch_add(micros, Ordering::Relaxed);
        self.shared.announce();
    }

    /// Releases the locks of all owners that have joined, as the death of the process does, for tests.
    #[doc(hidden)]
    pub fn release_owner_locks(&self) {
        self.shared.owners.release();
    }

    fn write<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> StoreFuture<'_, T> {
        Box::pin(self.workers.write(name, work))
    }

    fn read<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> StoreFuture<'_, T> {
        Box::pin(self.workers.read(name, work))
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Store for SqliteStore {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.is_shared = true;
        capabilities.is_durable = true;
        capabilities
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(async {
            self.workers.close().await;
            Ok(())
        })
    }

    // ---- Owners.

    fn join(&self, owner: OwnerId, lease: Duration) -> StoreFuture<'_, ()> {
        self.write("join", move |tx| owners::join(tx, owner, lease))
    }

    fn renew(&self, owner: OwnerId, lease: Duration) -> StoreFuture<'_, ()> {
        self.write("renew", move |tx| owners::renew(tx, owner, lease))
    }

    fn leave(&self, owner: OwnerId) -> StoreFuture<'_, ()> {
        self.write("leave", move |tx| owners::leave(tx, owner))
    }

    // ---- Runs.

    fn begin_run(&self, request: BeginRun) -> StoreFuture<'_, Begun> {
        self.write("begin_run", move |tx| runs::begin(tx, &request))
    }

    fn start_run(&self, run: RunId, owner: OwnerId, start: RunStart) -> StoreFuture<'_, Begun> {
        self.write("start_run", move |tx| runs::start(tx, run, owner, &start))
    }

    fn commit(&self, commit: Commit) -> StoreFuture<'_, Committed> {
        self.write("commit", move |tx| runs::commit(tx, &commit))
    }

    fn record(&self, run: RunId, epoch: u64, progress: Vec<ProgressRecord>) -> StoreFuture<'_, ()> {
        self.write("record", move |tx| runs::record(tx, run, epoch, &progress))
    }

    fn release_run(&self, run: RunId, epoch: u64, consumed: Duration) -> StoreFuture<'_, ()> {
        self.write("release_run", move |tx| runs::release(tx, run, epoch, consumed))
    }

    fn take_over(&self, request: TakeOver) -> StoreFuture<'_, Vec<TakenRun>> {
        self.write("take_over", move |tx| takeover::take_over(tx, &request))
    }

    fn request_cancel(&self, run: RunId, kind: CancelKind) -> StoreFuture<'_, CancelRequested> {
        self.write("request_cancel", move |tx| runs::request_cancel(tx, run, kind))
    }

    fn run(&self, run: RunId) -> StoreFuture<'_, Option<RunRow>> {
        self.read("run", move |tx| runs::by_id(tx, run))
    }

    fn runs(&self, filter: RunFilter) -> StoreFuture<'_, Vec<RunRow>> {
        self.read("runs", move |tx| runs::list(tx, &filter))
    }

    fn delete_run(&self, run: RunId) -> StoreFuture<'_, Deleted> {
        self.write("delete_run", move |tx| runs::delete(tx, run))
    }

    // ---- Threads.

    fn create_thread(&self, thread: NewThread) -> StoreFuture<'_, (ThreadRow, bool)> {
        self.write("create_thread", move |tx| threads::create(tx, &thread))
    }

    fn thread(&self, thread: &ThreadId) -> StoreFuture<'_, Option<ThreadRow>> {
        let thread = thread.clone();
        self.read("thread", move |tx| threads::by_id(tx, &thread))
    }

    fn threads(&self, filter: ThreadFilter) -> StoreFuture<'_, ThreadPage> {
        self.read("threads", move |tx| threads::list(tx, &filter))
    }

    fn patch_metadata(&self, thread: &ThreadId, patch: Map<String, Value>) -> StoreFuture<'_, Option<ThreadRow>> {
        let thread = thread.clone();
        self.write("patch_metadata", move |tx| threads::patch_metadata(tx, &thread, patch))
    }

    fn load(&self, thread: &ThreadId, at: Option<CheckpointId>) -> StoreFuture<'_, Option<CheckpointRow>> {
        let thread = thread.clone();
        self.read("load", move |tx| checkpoints::load(tx, &thread, at))
    }

    fn history(&self, thread: &ThreadId, filter: HistoryFilter) -> StoreFuture<'_, Vec<CheckpointRow>> {
        let thread = thread.clone();
        self.read("history", move |tx| checkpoints::history(tx, &thread, &filter))
    }

    fn questions(&self, thread: &ThreadId, status: Option<QuestionStatus>) -> StoreFuture<'_, Vec<QuestionRow>> {
        let thread = thread.clone();
        self.read("questions", move |tx| threads::questions(tx, &thread, status))
    }

    fn progress(&self, thread: &ThreadId) -> StoreFuture<'_, Vec<ProgressRecord>> {
        let thread = thread.clone();
        self.read("progress", move |tx| threads::progress(tx, &thread))
    }

    fn edit(&self, edit: Edit) -> StoreFuture<'_, Edited> {
        self.write("edit", move |tx| threads::edit(tx, &edit))
    }

    fn copy_thread(&self, from: &ThreadId, to: &ThreadId) -> StoreFuture<'_, Option<ThreadRow>> {
        let (from, to) = (from.clone(), to.clone());
        self.write("copy_thread", move |tx| threads::copy(tx, &from, &to))
    }

    fn delete_thread(&self, thread: &ThreadId) -> StoreFuture<'_, Deleted> {
        let thread = thread.clone();
        self.write("delete_thread", move |tx| threads::delete(tx, &thread))
    }

    fn prune(&self, thread: &ThreadId, keep: usize) -> StoreFuture<'_, usize> {
        let thread = thread.clone();
        self.write("prune", move |tx| checkpoints::prune(tx, &thread, keep))
    }

    // ---- Durable tasks.

    fn enqueue(&self, tasks: Vec<NewTask>) -> StoreFuture<'_, Vec<Enqueued>> {
        self.write("enqueue", move |tx| tasks::enqueue(tx, &tasks))
    }

    fn claim(&self, claim: Claim) -> StoreFuture<'_, Claimed> {
        self.write("claim", move |tx| claims::claim(tx, &claim))
    }

    fn finish_task(&self, finish: FinishTask) -> StoreFuture<'_, ()> {
        self.write("finish_task", move |tx| tasks::finish(tx, &finish))
    }

    fn release_task(&self, release: ReleaseTask) -> StoreFuture<'_, ()> {
        self.write("release_task", move |tx| tasks::release(tx, &release))
    }

    fn cancel_task(&self, task: StoredTaskId) -> StoreFuture<'_, TaskChanged> {
        self.write("cancel_task", move |tx| tasks::cancel(tx, task))
    }

    fn retry_task(&self, task: StoredTaskId) -> StoreFuture<'_, TaskChanged> {
        self.write("retry_task", move |tx| tasks::retry(tx, task))
    }

    fn delete_task(&self, task: StoredTaskId) -> StoreFuture<'_, TaskChanged> {
        self.write("delete_task", move |tx| tasks::delete(tx, task))
    }

    fn tasks(&self, filter: StoredTaskFilter) -> StoreFuture<'_, Vec<TaskRow>> {
        self.read("tasks", move |tx| tasks::list(tx, &filter))
    }

    fn retain_tasks(&self, retention: TaskRetention) -> StoreFuture<'_, usize> {
        self.write("retain_tasks", move |tx| tasks::retain(tx, retention))
    }

    // ---- Schedules.

    fn put_schedule(&self, schedule: ScheduleRow) -> StoreFuture<'_, ()> {
        self.write("put_schedule", move |tx| schedules::put(tx, &schedule))
    }

    fn delete_schedule(&self, name: &str) -> StoreFuture<'_, bool> {
        let name = name.to_owned();
        self.write("delete_schedule", move |tx| schedules::delete(tx, &name))
    }

    fn schedules(&self) -> StoreFuture<'_, Vec<ScheduleRow>> {
        self.read("schedules", schedules::list)
    }

    fn fire(&self, fire: Fire) -> StoreFuture<'_, Fired> {
        self.write("fire", move |tx| schedules::fire(tx, &fire))
    }

    // ---- Items.

    fn put_item(&self, put: PutItem) -> StoreFuture<'_, PutOutcome> {
        self.write("put_item", move |tx| items::put(tx, &put))
    }

    fn item(&self, namespace: &[String], key: &str) -> StoreFuture<'_, Option<ItemRow>> {
        let (namespace, key) = (namespace.to_vec(), key.to_owned());
        self.read("item", move |tx| items::by_key(tx, &namespace, &key))
    }

    fn delete_item(&self, namespace: &[String], key: &str) -> StoreFuture<'_, bool> {
        let (namespace, key) = (namespace.to_vec(), key.to_owned());
        self.write("delete_item", move |tx| items::delete(tx, &namespace, &key))
    }

    fn items(&self, filter: ItemFilter) -> StoreFuture<'_, Vec<ItemRow>> {
        self.read("items", move |tx| items::list(tx, &filter))
    }

    fn namespaces(&self, prefix: &[String]) -> StoreFuture<'_, Vec<Vec<String>>> {
        let prefix = prefix.to_vec();
        self.read("namespaces", move |tx| items::namespaces(tx, &prefix))
    }

    // ---- Changes.

    fn now(&self) -> StoreFuture<'_, Timestamp> {
        Box::pin(async { Ok(self.shared.now()) })
    }

    fn changes(&self, since: u64, wait: Duration) -> StoreFuture<'_, u64> {
        Box::pin(async move {
            let mut receiver = self.shared.changes.subscribe();
            let deadline = Instant::now() + wait;
            let changed = async {
                // The sender lives as long as the store.
                let _ = receiver.wait_for(|changes| *changes != since).await;
            };
            let look_elsewhere = async {
                loop {
                    self.workers.look().await;
                    sleep(POLL).await;
                }
            };
            tokio::select! {
                () = changed => {}
                () = look_elsewhere => {}
                () = sleep_until(deadline) => {}
            }
            Ok(*self.shared.changes.borrow())
        })
    }
}

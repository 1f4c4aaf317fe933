//! [`PostgresStore`]: the store of [`agentflow`] for several processes, in PostgreSQL.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use agentflow::store::Store;
//! use agentflow_postgres::PostgresStore;
//!
//! # async fn connect() -> Result<(), agentflow::store::StoreError> {
//! let store: Arc<dyn Store> = Arc::new(PostgresStore::connect("postgres://app@localhost/app").await?);
//! # Ok(())
//! # }
//! ```
//!
//! The store works with a pool of the caller's too, [`PostgresStore::new`]. Its tables are named `agentflow_…` and are in
//! the first schema of the connections' search path, so that several stores fit into one database.
//!
//! # Leases
//!
//! An owner is alive until its lease ends by the server's clock; the clocks of the processes have no influence. A thread
//! of the store renews leases over a connection of its own.
//!
//! # Poolers
//!
//! Through a pooler that gives each transaction another connection (PgBouncer with `pool_mode = transaction`) the store
//! works as well: it prepares no statement and changes no setting beyond a transaction. Notifications do not get through,
//! so that it hears of changes only when it polls, once a second; [`PostgresStore::listen`] with a configuration that goes
//! around the pooler mends that.
//!
//! # Losses
//!
//! Acknowledged writes survive as the server was told to keep them: with `synchronous_commit = off`, and in a failover to
//! an asynchronous replica, the newest commits may be gone.

mod checkpoints;
mod error;
mod items;
mod own_connection;
mod owners;
mod rows;
mod runs;
mod schedules;
mod schema;
mod takeover;
mod tasks;
mod threads;
mod transaction;
mod value;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use agentflow::{
    RunId,
    store::{
        BeginRun, Begun, CancelKind, CancelRequested, Capabilities, CheckpointId, CheckpointRow, Claim, Claimed,
        Commit, Committed, Deleted, Edit, Edited, Enqueued, FinishTask, Fire, Fired, HistoryFilter, ItemFilter,
        ItemRow, NewTask, NewThread, OwnerId, ProgressRecord, PutItem, PutOutcome, QuestionRow, QuestionStatus,
        ReleaseTask, RunFilter, RunRow, RunStart, ScheduleRow, Store, StoreError, StoreErrorKind, StoreFuture,
        StoredTaskFilter, StoredTaskId, TakeOver, TakenRun, TaskChanged, TaskRetention, TaskRow, ThreadFilter,
        ThreadId, ThreadPage, ThreadRow, Timestamp,
    },
};
use deadpool_postgres::{Manager, ManagerConfig, Pool, PoolConfig, RecyclingMethod, Runtime, Timeouts};
use serde_json::{Map, Value};
use tokio_postgres::{
    Config, NoTls, Socket,
    tls::{MakeTlsConnect, TlsConnect},
};

use crate::{
    own_connection::{Changes, Connector, OwnConnection},
    transaction::Session,
};

/// The time for which a connection of a pool that the store makes is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A store in a PostgreSQL database, for any number of processes. Clones are one store.
#[derive(Clone)]
pub struct PostgresStore {
    shared: Arc<Shared>,
}

struct Shared {
    pool: Pool,
    /// The pool is the store's, and closed with it.
    owns_pool: bool,
    own_connection: OwnConnection,
    changes: Changes,
    /// A flag that stands for itself: an operation that begins at the same time may go on.
    is_closed: AtomicBool,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("pool", &self.shared.pool.status()).finish_non_exhaustive()
    }
}

impl PostgresStore {
    /// Creates a store that uses a pool of the caller's. Nothing is sent before [`Store::open`].
    ///
    /// The store makes one more connection, as those of the pool, to renew leases. It hears of changes by polling;
    /// [`listen`](Self::listen) makes it listen.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        let connector = Connector::Pool(pool.clone());
        Self::build(pool, false, connector)
    }

    /// Makes the one more connection by this configuration, and listens on it for changes. The configuration is for the
    /// database of the pool and goes around a pooler.
    ///
    /// It is meant for a store that has just been created: clones from before do not listen.
    #[must_use]
    pub fn listen<T>(self, config: Config, tls: T) -> Self
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        Self::build(self.shared.pool.clone(), self.shared.owns_pool, Connector::listen(config, tls))
    }

    /// Opens a store with a pool of its own, without TLS. Creates the tables, or brings them up to date.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::Invalid`] for a text that is not a connection string, [`StoreErrorKind::Unavailable`] if the
    /// server cannot be reached, and [`StoreErrorKind::TooNew`] if the tables were written by a newer version.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        let config = url.parse::<Config>();
        let config = config.map_err(|error| StoreError::new("connect", StoreErrorKind::Invalid).with_source(error))?;
        Self::connect_with(config).await
    }

    /// Opens a store with a pool of its own by a configuration, without TLS; see [`connect`](Self::connect).
    ///
    /// # Errors
    ///
    /// See [`connect`](Self::connect).
    pub async fn connect_with(mut config: Config) -> Result<Self, StoreError> {
        if config.get_application_name().is_none() {
            config.application_name("agentflow");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(PATIENCE);
        }
        if config.get_tcp_user_timeout().is_none() {
            // A server that is cut off sends no word of it; without this limit, a statement waits for hours.
            config.tcp_user_timeout(PATIENCE);
        }
        let manager = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config.clone(), NoTls, manager);
        let timeouts = Timeouts { wait: Some(PATIENCE), create: Some(PATIENCE), recycle: Some(PATIENCE) };
        let pool = Pool::builder(manager)
            .config(PoolConfig { timeouts, ..PoolConfig::default() })
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| StoreError::new("connect", StoreErrorKind::Other).with_source(error))?;
        let store = Self::build(pool, true, Connector::listen(config, NoTls));
        store.open().await?;
        Ok(store)
    }

    fn build(pool: Pool, owns_pool: bool, connector: Connector) -> Self {
        let changes = Changes::new();
        let own_connection = OwnConnection::new(connector, changes.clone());
        let is_closed = AtomicBool::new(false);
        Self { shared: Arc::new(Shared { pool, owns_pool, own_connection, changes, is_closed }) }
    }

    /// Moves the clock of all stores with these tables by `micros`, for tests.
    #[doc(hidden)]
    pub async fn move_clock(&self, micros: i64) -> Result<(), StoreError> {
        owners::move_clock(self.session("move_clock").await?, micros).await
    }

    async fn session(&self, operation: &'static str) -> Result<Session, StoreError> {
        // The flag stands for itself, so no order with other memory is needed.
        if self.shared.is_closed.load(Ordering::Relaxed) {
            return Err(error::closed(operation));
        }
        let client = self.shared.pool.get().await.map_err(|error| error::pool(operation, error))?;
        Ok(Session::new(client, operation))
    }

    /// Carries out an operation that only reads.
    fn read<'s, T, F>(
        &'s self,
        operation: &'static str,
        read: impl FnOnce(Session) -> F + Send + 's,
    ) -> StoreFuture<'s, T>
    where
        F: Future<Output = Result<T, StoreError>> + Send + 's,
    {
        Box::pin(async move { read(self.session(operation).await?).await })
    }

    /// Carries out an operation that writes, and tells the readers of this process at once.
    fn write<'s, T, F>(
        &'s self,
        operation: &'static str,
        write: impl FnOnce(Session) -> F + Send + 's,
    ) -> StoreFuture<'s, T>
    where
        T: Send + 's,
        F: Future<Output = Result<T, StoreError>> + Send + 's,
    {
        self.write_if(operation, write, |_| true)
    }

    /// Carries out an operation that writes, and tells the readers if its outcome says that it has changed anything. Else
    /// two callers that wait for changes would wake each other for ever.
    fn write_if<'s, T, F>(
        &'s self,
        operation: &'static str,
        write: impl FnOnce(Session) -> F + Send + 's,
        is_change: fn(&T) -> bool,
    ) -> StoreFuture<'s, T>
    where
        T: Send + 's,
        F: Future<Output = Result<T, StoreError>> + Send + 's,
    {
        Box::pin(async move {
            let outcome = write(self.session(operation).await?).await?;
            if is_change(&outcome) {
                self.shared.changes.add();
            }
            Ok(outcome)
        })
    }
}

impl Store for PostgresStore {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.is_shared = true;
        capabilities.is_durable = true;
        capabilities
    }

    fn open(&self) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            schema::migrate(self.session("open").await?).await?;
            self.shared.own_connection.start("open")
        })
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            // The flag stands for itself, so no order with other memory is needed.
            self.shared.is_closed.store(true, Ordering::Relaxed);
            self.shared.own_connection.stop();
            if self.shared.owns_pool {
                self.shared.pool.close();
            }
            Ok(())
        })
    }

    fn join(&self, owner: OwnerId, lease: Duration) -> StoreFuture<'_, ()> {
        self.read("join", move |session| owners::join(session, owner, lease))
    }

    fn renew(&self, owner: OwnerId, lease: Duration) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            if self.shared.is_closed.load(Ordering::Relaxed) {
                return Err(error::closed("renew"));
            }
            self.shared.own_connection.renew(owner, lease).await
        })
    }

    fn leave(&self, owner: OwnerId) -> StoreFuture<'_, ()> {
        self.write("leave", move |session| owners::leave(session, owner))
    }

    fn begin_run(&self, request: BeginRun) -> StoreFuture<'_, Begun> {
        let is_change = |begun: &Begun| matches!(begun, Begun::Running(_) | Begun::Queued { .. });
        self.write_if("begin_run", move |session| runs::begin(session, request), is_change)
    }

    fn start_run(&self, run: RunId, owner: OwnerId, start: RunStart) -> StoreFuture<'_, Begun> {
        let is_change = |begun: &Begun| matches!(begun, Begun::Running(_));
        self.write_if("start_run", move |session| runs::start(session, run, owner, start), is_change)
    }

    fn commit(&self, commit: Commit) -> StoreFuture<'_, Committed> {
        self.write("commit", move |session| runs::commit(session, commit))
    }

    fn record(&self, run: RunId, epoch: u64, progress: Vec<ProgressRecord>) -> StoreFuture<'_, ()> {
        self.write("record", move |session| runs::record(session, run, epoch, progress))
    }

    fn release_run(&self, run: RunId, epoch: u64, consumed: Duration) -> StoreFuture<'_, ()> {
        self.write("release_run", move |session| runs::release(session, run, epoch, consumed))
    }

    fn take_over(&self, request: TakeOver) -> StoreFuture<'_, Vec<TakenRun>> {
        self.write_if("take_over", move |session| takeover::take_over(session, request), |taken| !taken.is_empty())
    }

    fn request_cancel(&self, run: RunId, kind: CancelKind) -> StoreFuture<'_, CancelRequested> {
        self.write("request_cancel", move |session| runs::request_cancel(session, run, kind))
    }

    fn run(&self, run: RunId) -> StoreFuture<'_, Option<RunRow>> {
        self.read("run", move |session| runs::get(session, run))
    }

    fn runs(&self, filter: RunFilter) -> StoreFuture<'_, Vec<RunRow>> {
        self.read("runs", move |session| runs::list(session, filter))
    }

    fn delete_run(&self, run: RunId) -> StoreFuture<'_, Deleted> {
        self.write("delete_run", move |session| runs::delete(session, run))
    }

    fn create_thread(&self, thread: NewThread) -> StoreFuture<'_, (ThreadRow, bool)> {
        self.write("create_thread", move |session| threads::create(session, thread))
    }

    fn thread(&self, thread: &ThreadId) -> StoreFuture<'_, Option<ThreadRow>> {
        let thread = thread.clone();
        self.read("thread", move |session| async move { threads::get(session, &thread).await })
    }

    fn threads(&self, filter: ThreadFilter) -> StoreFuture<'_, ThreadPage> {
        self.read("threads", move |session| threads::list(session, filter))
    }

    fn patch_metadata(&self, thread: &ThreadId, patch: Map<String, Value>) -> StoreFuture<'_, Option<ThreadRow>> {
        let thread = thread.clone();
        self.write(
            "patch_metadata",
            move |session| async move { threads::patch_metadata(session, &thread, patch).await },
        )
    }

    fn load(&self, thread: &ThreadId, at: Option<CheckpointId>) -> StoreFuture<'_, Option<CheckpointRow>> {
        let thread = thread.clone();
        self.read("load", move |mut session| async move { checkpoints::load(&mut session, &thread, at).await })
    }

    fn history(&self, thread: &ThreadId, filter: HistoryFilter) -> StoreFuture<'_, Vec<CheckpointRow>> {
        let thread = thread.clone();
        self.read(
            "history",
            move |mut session| async move { checkpoints::history(&mut session, &thread, &filter).await },
        )
    }

    fn questions(&self, thread: &ThreadId, status: Option<QuestionStatus>) -> StoreFuture<'_, Vec<QuestionRow>> {
        let thread = thread.clone();
        self.read("questions", move |session| async move { threads::questions(session, &thread, status).await })
    }

    fn progress(&self, thread: &ThreadId) -> StoreFuture<'_, Vec<ProgressRecord>> {
        let thread = thread.clone();
        self.read("progress", move |session| async move { threads::progress(session, &thread).await })
    }

    fn edit(&self, edit: Edit) -> StoreFuture<'_, Edited> {
        self.write_if("edit", move |session| threads::edit(session, edit), |edited| matches!(edited, Edited::Made(_)))
    }

    fn copy_thread(&self, from: &ThreadId, to: &ThreadId) -> StoreFuture<'_, Option<ThreadRow>> {
        let (from, to) = (from.clone(), to.clone());
        self.write("copy_thread", move |session| async move { threads::copy(session, &from, &to).await })
    }

    fn delete_thread(&self, thread: &ThreadId) -> StoreFuture<'_, Deleted> {
        let thread = thread.clone();
        self.write("delete_thread", move |session| async move { threads::delete(session, &thread).await })
    }

    fn prune(&self, thread: &ThreadId, keep: usize) -> StoreFuture<'_, usize> {
        let thread = thread.clone();
        self.write("prune", move |session| async move { threads::prune(session, &thread, keep).await })
    }

    fn enqueue(&self, tasks: Vec<NewTask>) -> StoreFuture<'_, Vec<Enqueued>> {
        self.write("enqueue", move |session| tasks::enqueue(session, tasks))
    }

    fn claim(&self, claim: Claim) -> StoreFuture<'_, Claimed> {
        let is_change = |claimed: &Claimed| !claimed.tasks.is_empty() || !claimed.parked.is_empty();
        self.write_if("claim", move |session| tasks::claim(session, claim), is_change)
    }

    fn finish_task(&self, finish: FinishTask) -> StoreFuture<'_, ()> {
        self.write("finish_task", move |session| tasks::finish(session, finish))
    }

    fn release_task(&self, release: ReleaseTask) -> StoreFuture<'_, ()> {
        self.write("release_task", move |session| tasks::release(session, release))
    }

    fn cancel_task(&self, task: StoredTaskId) -> StoreFuture<'_, TaskChanged> {
        self.write("cancel_task", move |session| tasks::cancel(session, task))
    }

    fn retry_task(&self, task: StoredTaskId) -> StoreFuture<'_, TaskChanged> {
        self.write("retry_task", move |session| tasks::retry(session, task))
    }

    fn delete_task(&self, task: StoredTaskId) -> StoreFuture<'_, TaskChanged> {
        self.write("delete_task", move |session| tasks::delete(session, task))
    }

    fn tasks(&self, filter: StoredTaskFilter) -> StoreFuture<'_, Vec<TaskRow>> {
        self.read("tasks", move |session| tasks::list(session, filter))
    }

    fn retain_tasks(&self, retention: TaskRetention) -> StoreFuture<'_, usize> {
        self.write_if("retain_tasks", move |session| tasks::retain(session, retention), |deleted| *deleted > 0)
    }

    fn put_schedule(&self, schedule: ScheduleRow) -> StoreFuture<'_, ()> {
        self.write("put_schedule", move |session| schedules::put(session, schedule))
    }

    fn delete_schedule(&self, name: &str) -> StoreFuture<'_, bool> {
        let name = name.to_owned();
        self.write("delete_schedule", move |session| async move { schedules::delete(session, &name).await })
    }

    fn schedules(&self) -> StoreFuture<'_, Vec<ScheduleRow>> {
        self.read("schedules", schedules::list)
    }

    fn fire(&self, fire: Fire) -> StoreFuture<'_, Fired> {
        let is_change = |fired: &Fired| !matches!(fired, Fired::NotDue);
        self.write_if("fire", move |session| schedules::fire(session, fire), is_change)
    }

    fn put_item(&self, put: PutItem) -> StoreFuture<'_, PutOutcome> {
        self.write("put_item", move |session| items::put(session, put))
    }

    fn item(&self, namespace: &[String], key: &str) -> StoreFuture<'_, Option<ItemRow>> {
        let (namespace, key) = (namespace.to_vec(), key.to_owned());
        self.read("item", move |session| async move { items::get(session, &namespace, &key).await })
    }

    fn delete_item(&self, namespace: &[String], key: &str) -> StoreFuture<'_, bool> {
        let (namespace, key) = (namespace.to_vec(), key.to_owned());
        self.write("delete_item", move |session| async move { items::delete(session, &namespace, &key).await })
    }

    fn items(&self, filter: ItemFilter) -> StoreFuture<'_, Vec<ItemRow>> {
        self.read("items", move |session| items::list(session, filter))
    }

    fn namespaces(&self, prefix: &[String]) -> StoreFuture<'_, Vec<Vec<String>>> {
        let prefix = prefix.to_vec();
        self.read("namespaces", move |session| async move { items::namespaces(session, &prefix).await })
    }

    fn now(&self) -> StoreFuture<'_, Timestamp> {
        self.read("now", owners::now)
    }

    fn changes(&self, since: u64, timeout: Duration) -> StoreFuture<'_, u64> {
        Box::pin(async move { Ok(self.shared.changes.wait(since, timeout).await) })
    }
}

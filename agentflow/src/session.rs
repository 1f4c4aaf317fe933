//! [`Session`]: one opening of a store by an app, and the runs that it drives.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    panics::catch_panic,
    run_id::RunId,
    store::{
        CancelKind, OwnerId, ReleaseTask, RunFilter, RunStatus, Store, StoreError, StoreErrorKind, StoredTaskFilter,
        StoredTaskId, TaskStatus, ThreadId,
    },
    sync::Mutex,
};

/// The time for which an owner counts as alive after it has renewed its lease.
pub(crate) const LEASE: Duration = Duration::from_secs(30);

/// The time between two renewals.
const RENEWAL: Duration = Duration::from_secs(10);

/// The longest time until a change that another process has made is seen.
pub(crate) const POLL: Duration = Duration::from_secs(1);

/// The time for which an operation is repeated that fails with an error that may pass.
pub(crate) const STORE_PATIENCE: Duration = Duration::from_secs(30);

/// One opening of a store by an app. It is the owner of the runs and the tasks that the app works on.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) store: Arc<dyn Store>,
    /// The owner. It is another one after the store has removed it, because its lease had run out.
    owner: Mutex<OwnerId>,
    runs: Mutex<HashMap<RunId, LiveRun>>,
    tasks: Mutex<LiveTasks>,
    /// Notified when a task of this session has ended, and its end is recorded.
    task_ended: Notify,
    /// Has a permit if a task has ended since the worker last waited for it.
    pub(crate) room_freed: Notify,
    /// Notified when a run of this session has ended, for the runs that are queued behind it.
    pub(crate) run_ended: Notify,
    /// Dropped when the session ends, which ends the thread that renews the lease.
    renewal: Mutex<Option<mpsc::Sender<()>>>,
    /// The time of the last renewal, on the clock of the system.
    renewed: Mutex<std::time::Instant>,
    /// Set once the recovery of runs goes on in the background. Relaxed, because it guards nothing but itself.
    is_recovering: AtomicBool,
    /// Set once the owner leaves the store. Relaxed, for the same reason.
    is_closed: AtomicBool,
}

/// An app that is dropped without being closed leaves the store, if there is a runtime. What it still holds is taken over as
/// that of a dead owner.
impl Drop for Session {
    fn drop(&mut self) {
        if self.is_closed.load(Ordering::Relaxed) {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            let (store, owner) = (Arc::clone(&self.store), self.owner());
            runtime.spawn(async move {
                if let Err(error) = store.leave(owner).await {
                    catch_panic(|| tracing::debug!(%error, "the store was not left; its lease runs out by itself"));
                }
            });
        }
    }
}

/// The durable tasks that a session runs, and those that it has given up.
#[derive(Debug, Default)]
struct LiveTasks {
    live: HashMap<StoredTaskId, LiveTask>,
    kept: Vec<StoredTaskId>,
}

/// A durable task that a session runs.
#[derive(Debug)]
struct LiveTask {
    name: &'static str,
    epoch: u64,
    /// Stops the task.
    token: CancellationToken,
    /// Set if the task is to be cancelled, and not to run again.
    is_cancelled: bool,
}

/// A run that this session drives.
#[derive(Clone, Debug)]
pub(crate) struct LiveRun {
    pub(crate) thread: ThreadId,
    /// Cancels the run.
    pub(crate) token: CancellationToken,
    /// The cancel that was requested.
    pub(crate) cancel: Option<CancelKind>,
    /// False while the run is queued.
    pub(crate) is_running: bool,
    pub(crate) since: Instant,
}

impl Session {
    /// Opens the store, and joins it as a new owner.
    pub(crate) async fn open(store: Arc<dyn Store>) -> Result<Arc<Self>, StoreError> {
        let owner = OwnerId::new();
        patiently(|| store.open()).await?;
        // The threads of one app in memory have no other owner, and nothing renews its lease.
        let lease = if store.capabilities().is_shared { LEASE } else { Duration::MAX };
        patiently(|| store.join(owner, lease)).await?;
        let session = Arc::new(Self {
            store,
            owner: Mutex::new(owner),
            runs: Mutex::default(),
            tasks: Mutex::default(),
            task_ended: Notify::new(),
            room_freed: Notify::new(),
            run_ended: Notify::new(),
            renewal: Mutex::default(),
            renewed: Mutex::new(std::time::Instant::now()),
            is_recovering: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
        });
        if session.store.capabilities().is_shared {
            let (sender, stop) = mpsc::channel();
            *session.renewal.lock() = Some(sender);
            renew_on_a_thread(Arc::downgrade(&session), stop);
            tokio::spawn(watch_cancels(Arc::downgrade(&session)));
        }
        Ok(session)
    }

    /// Returns whether the caller is the first one to start the recovery in the background.
    pub(crate) fn starts_recovery(&self) -> bool {
        !self.is_recovering.swap(true, Ordering::Relaxed)
    }

    /// Returns the present owner.
    pub(crate) fn owner(&self) -> OwnerId {
        *self.owner.lock()
    }

    /// Registers a run that this session drives from now on. It is registered before the store is asked, so that no other
    /// part of the session takes it for an orphan. Returns `None` if the session drives the run already.
    pub(crate) fn register(
        self: &Arc<Self>,
        run: RunId,
        thread: ThreadId,
        token: CancellationToken,
    ) -> Option<DrivenRun> {
        let mut runs = self.runs.lock();
        if runs.contains_key(&run) {
            return None;
        }
        runs.insert(run, LiveRun { thread, token, cancel: None, is_running: false, since: Instant::now() });
        Some(DrivenRun { session: Arc::clone(self), run })
    }

    /// Requests a cancel of a run of this session. Returns whether it drives the run. Of two kinds the stronger holds.
    pub(crate) fn cancel(&self, run: RunId, kind: CancelKind) -> bool {
        let mut runs = self.runs.lock();
        let Some(live) = runs.get_mut(&run) else { return false };
        live.cancel = live.cancel.max(Some(kind));
        let token = live.token.clone();
        drop(runs);
        // The wakers of those that wait for the token may be the user's.
        catch_panic(|| token.cancel());
        true
    }

    /// Returns the cancel that was requested of a run.
    pub(crate) fn cancel_of(&self, run: RunId) -> Option<CancelKind> {
        self.runs.lock().get(&run).and_then(|live| live.cancel)
    }

    /// Returns whether this session drives the run.
    pub(crate) fn drives(&self, run: RunId) -> bool {
        self.runs.lock().contains_key(&run)
    }

    /// Returns the runs that this session drives.
    pub(crate) fn live_runs(&self) -> Vec<(RunId, LiveRun)> {
        self.runs.lock().iter().map(|(run, live)| (*run, live.clone())).collect()
    }

    /// Registers a durable task that this session runs from now on. If it still runs the task in an earlier epoch, which it
    /// has lost, that is stopped.
    pub(crate) fn begin_task(self: &Arc<Self>, task: StoredTaskId, name: &'static str, epoch: u64) -> RunningTask {
        let token = CancellationToken::new();
        let live = LiveTask { name, epoch, token: token.clone(), is_cancelled: false };
        let former = self.tasks.lock().live.insert(task, live);
        if let Some(former) = former {
            catch_panic(|| former.token.cancel());
        }
        RunningTask { session: Arc::clone(self), task, epoch, token }
    }

    /// Stops a durable task for good. Returns whether this session runs it.
    pub(crate) fn cancel_task(&self, task: StoredTaskId) -> bool {
        let token = {
            let mut tasks = self.tasks.lock();
            let Some(live) = tasks.live.get_mut(&task) else { return false };
            live.is_cancelled = true;
            live.token.clone()
        };
        catch_panic(|| token.cancel());
        true
    }

    /// Returns the number of durable tasks that this session runs, of each name.
    pub(crate) fn running_tasks(&self) -> HashMap<&'static str, usize> {
        let mut running = HashMap::new();
        for live in self.tasks.lock().live.values() {
            *running.entry(live.name).or_default() += 1;
        }
        running
    }

    /// Waits until this session runs no durable task.
    pub(crate) async fn wait_for_tasks(&self) {
        loop {
            let mut ended = std::pin::pin!(self.task_ended.notified());
            ended.as_mut().enable();
            if self.tasks.lock().live.is_empty() {
                return;
            }
            ended.await;
        }
    }

    /// Returns the durable tasks that were released because of a shutdown.
    pub(crate) fn kept_tasks(&self) -> Vec<StoredTaskId> {
        self.tasks.lock().kept.clone()
    }

    /// Stops the durable tasks of which a cancel is requested in the store, and releases those that the store ascribes to
    /// this owner and that this process does not run: an answer of the store was lost, or the store was away for too long.
    ///
    /// The caller is the only one that claims, and none of its claims is under way.
    pub(crate) async fn check_tasks(&self) -> Result<(), StoreError> {
        let (owner, status) = (Some(self.owner()), Some(TaskStatus::Running));
        let filter = StoredTaskFilter { status, owner, ..StoredTaskFilter::default() };
        for row in self.store.tasks(filter).await? {
            let id = row.task.id;
            let is_live = self.tasks.lock().live.get(&id).is_some_and(|live| live.epoch == row.epoch);
            if !is_live {
                let released = self.store.release_task(ReleaseTask::new(id, row.epoch)).await;
                if let Err(error) = released {
                    catch_panic(|| tracing::debug!(task = %id, %error, "a task has changed before it was released"));
                }
            } else if row.cancel {
                self.cancel_task(id);
            }
        }
        Ok(())
    }

    /// Returns whether this owner may begin new work: less than two thirds of its lease have passed since it renewed it.
    pub(crate) fn may_begin(&self) -> bool {
        !self.store.capabilities().is_shared || self.renewed.lock().elapsed() < LEASE * 2 / 3
    }

    /// Renews the lease in a store that is not durable: its clock may be one that a test moves, and which the thread that renews
    /// does not follow.
    pub(crate) async fn renew_in_memory(&self) {
        if !self.store.capabilities().is_durable {
            self.renew().await;
        }
    }

    /// Renews the lease, or joins as another owner if the store has removed this one.
    async fn renew(&self) {
        let owner = self.owner();
        match self.store.renew(owner, LEASE).await {
            Ok(()) => *self.renewed.lock() = std::time::Instant::now(),
            Err(error) if *error.kind() == StoreErrorKind::Fenced => {
                let next = OwnerId::new();
                match self.store.join(next, LEASE).await {
                    Ok(()) => {
                        *self.owner.lock() = next;
                        *self.renewed.lock() = std::time::Instant::now();
                        catch_panic(|| {
                            tracing::warn!(
                                %owner, %next,
                                "the lease of this process ran out: others may have taken over its runs and tasks",
                            );
                        });
                    }
                    Err(error) => catch_panic(|| tracing::warn!(%error, "the store's lease was not renewed")),
                }
            }
            Err(error) => catch_panic(|| tracing::warn!(%error, "the store's lease was not renewed")),
        }
    }

    /// Cancels the runs of this session that other processes have marked. Returns the value for the next call.
    async fn see_cancels(&self, since: u64) -> Result<u64, StoreError> {
        let now = self.store.changes(since, POLL).await?;
        if self.runs.lock().is_empty() {
            return Ok(now);
        }
        let filter = RunFilter { owner: Some(self.owner()), status: Some(RunStatus::Running), ..RunFilter::default() };
        for row in self.store.runs(filter).await? {
            if let Some(kind) = row.cancel {
                self.cancel(row.run.id, kind);
            }
        }
        Ok(now)
    }

    /// Ends the session: what it still holds is taken over by others.
    pub(crate) async fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        self.renewal.lock().take();
        let owner = self.owner();
        if let Err(error) = self.store.leave(owner).await {
            catch_panic(|| tracing::warn!(%error, "the store was not left; its lease runs out by itself"));
        }
    }
}

/// Looks for the cancels of other processes, until the session ends.
///
/// It renews the lease as well, because a clock that a test has paused does not let the thread of the renewal wait.
async fn watch_cancels(session: Weak<Session>) {
    let mut since = 0;
    let mut renewed = Instant::now();
    loop {
        let Some(session) = session.upgrade().filter(|session| !session.is_closed.load(Ordering::Relaxed)) else {
            return;
        };
        if renewed.elapsed() >= RENEWAL {
            renewed = Instant::now();
            // The panics of a store are those of code of others.
            drop(AssertUnwindSafe(session.renew()).catch_unwind().await);
        }
        let seen = AssertUnwindSafe(session.see_cancels(since)).catch_unwind().await;
        drop(session);
        match seen {
            Ok(Ok(now)) => since = now,
            // A store that is away is asked again, and its panics are those of code of others.
            Ok(Err(_)) | Err(_) => sleep(POLL).await,
        }
    }
}

/// Renews the lease from a thread with a runtime of its own, so that neither a node that blocks a thread nor a busy pool can
/// stop it.
fn renew_on_a_thread(session: Weak<Session>, stop: mpsc::Receiver<()>) {
    let renew = move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        while let Err(mpsc::RecvTimeoutError::Timeout) = stop.recv_timeout(RENEWAL) {
            let Some(session) = session.upgrade() else { return };
            // A store is code of others, and a panic must not end the renewals.
            catch_panic(|| runtime.block_on(session.renew()));
        }
    };
    if let Err(error) = std::thread::Builder::new().name("agentflow-lease".to_owned()).spawn(renew) {
        catch_panic(|| tracing::error!(%error, "there is no thread for the renewal of the store's lease"));
    }
}

/// A run that is registered with its session until this is dropped.
#[derive(Debug)]
pub(crate) struct DrivenRun {
    session: Arc<Session>,
    run: RunId,
}

impl DrivenRun {
    /// Records that the run is queued no more.
    pub(crate) fn begins(&self) {
        if let Some(live) = self.session.runs.lock().get_mut(&self.run) {
            live.is_running = true;
        }
    }
}

impl Drop for DrivenRun {
    fn drop(&mut self) {
        self.session.runs.lock().remove(&self.run);
        self.session.run_ended.notify_waiters();
    }
}

/// A durable task that is registered with its session until this is dropped.
#[derive(Debug)]
pub(crate) struct RunningTask {
    pub(crate) session: Arc<Session>,
    task: StoredTaskId,
    epoch: u64,
    /// Cancelled when the task is to stop.
    pub(crate) token: CancellationToken,
}

impl RunningTask {
    /// Returns whether the task is to be cancelled, and not to run again.
    pub(crate) fn is_cancelled(&self) -> bool {
        let tasks = self.session.tasks.lock();
        tasks.live.get(&self.task).is_some_and(|live| live.epoch == self.epoch && live.is_cancelled)
    }

    /// Counts the task as one that runs again in another process, or after the next start.
    pub(crate) fn keep(&self) {
        self.session.tasks.lock().kept.push(self.task);
    }
}

impl Drop for RunningTask {
    fn drop(&mut self) {
        let mut tasks = self.session.tasks.lock();
        let is_own = tasks.live.get(&self.task).is_some_and(|live| live.epoch == self.epoch);
        let former = if is_own { tasks.live.remove(&self.task) } else { None };
        drop(tasks);
        drop(former);
        self.session.task_ended.notify_waiters();
        self.session.room_freed.notify_one();
    }
}

/// Repeats an operation while it fails with an error that may pass, for up to [`STORE_PATIENCE`].
pub(crate) async fn patiently<T, F>(operation: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    repeatedly(operation).await.0
}

/// Does as [`patiently`], and returns whether the operation was repeated: an attempt whose answer was lost may have carried it
/// out.
pub(crate) async fn repeatedly<T, F>(mut operation: impl FnMut() -> F) -> (Result<T, StoreError>, bool)
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut pause = Duration::from_millis(10);
    let mut was_repeated = false;
    let began = Instant::now();
    loop {
        match operation().await {
            Err(error) if error.may_pass() && began.elapsed() + pause < STORE_PATIENCE => {
                catch_panic(|| tracing::debug!(%error, retry_in = ?pause, "the store is repeated"));
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(2));
                was_repeated = true;
            }
            ended => return (ended, was_repeated),
        }
    }
}

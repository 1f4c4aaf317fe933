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
    store::{CancelKind, OwnerId, RunFilter, RunStatus, Store, StoreError, StoreErrorKind, ThreadId},
    sync::Mutex,
};

/// The time for which an owner counts as alive after it has renewed its lease.
pub(crate) const LEASE: Duration = Duration::from_secs(30);

/// The time between two renewals.
const RENEWAL: Duration = Duration::from_secs(10);

/// The longest time until a cancel of another process is seen.
const CANCEL_POLL: Duration = Duration::from_secs(1);

/// The time for which an operation is repeated that fails with an error that may pass.
pub(crate) const STORE_PATIENCE: Duration = Duration::from_secs(30);

/// One opening of a store by an app. It is the owner of the runs and the tasks that the app works on.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) store: Arc<dyn Store>,
    /// The owner. It is another one after the store has removed it, because its lease had run out.
    owner: Mutex<OwnerId>,
    runs: Mutex<HashMap<RunId, LiveRun>>,
    /// Notified when a run of this session has ended, for the runs that are queued behind it.
    pub(crate) run_ended: Notify,
    /// Dropped when the session ends, which ends the thread that renews the lease.
    renewal: Mutex<Option<mpsc::Sender<()>>>,
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
            run_ended: Notify::new(),
            renewal: Mutex::default(),
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

    /// Renews the lease, or joins as another owner if the store has removed this one.
    async fn renew(&self) {
        let owner = self.owner();
        match self.store.renew(owner, LEASE).await {
            Ok(()) => {}
            Err(error) if *error.kind() == StoreErrorKind::Fenced => {
                let next = OwnerId::new();
                match self.store.join(next, LEASE).await {
                    Ok(()) => {
                        *self.owner.lock() = next;
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
        let now = self.store.changes(since, CANCEL_POLL).await?;
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
            Ok(Err(_)) | Err(_) => sleep(CANCEL_POLL).await,
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

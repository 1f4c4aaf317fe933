//! The worker of an app: it claims the durable tasks that are due, and runs them.

use std::{
    collections::HashSet,
    panic::AssertUnwindSafe,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};

use super::attempt::{NotBegun, begin};
use crate::{
    graph::app::App,
    panics::catch_panic,
    session::{POLL, Session, patiently},
    state::State,
    store::{Claim, ReleaseTask, StoreError, TaskRetention, TaskRow},
    task::RegisteredTask,
};

/// The time between two deletions of tasks that ended long ago.
const RETENTION_PERIOD: Duration = Duration::from_mins(10);

/// The number of claims of which one takes the oldest tasks, so that those of a low priority are not left for ever.
const OLDEST_EVERY: u64 = 8;

/// Starts the worker of an app with durable tasks, unless it runs already or the app is to have none.
pub(crate) fn start_worker<S: State, C: Send + Sync + 'static>(app: &Arc<App<S, C>>) {
    if app.store.is_none() || app.tasks.is_empty() || app.worker.limits.all == 0 {
        return;
    }
    let Some(runtime) = Handle::try_current().ok().or_else(|| app.manager.runtime()) else { return };
    if app.worker.starts() {
        runtime.spawn(Worker::new(app).work(Arc::downgrade(app)));
    }
}

/// The worker of an app.
struct Worker {
    /// The names of the tasks that it runs, each with the greatest number of them.
    names: Vec<(&'static str, Arc<str>, usize)>,
    limit: usize,
    claims: u64,
    /// The time of the last look for cancels.
    checked: Instant,
    /// The time of the last deletion of ended tasks.
    retained: Instant,
    /// The names of tasks that could not be read, each of which is reported once.
    unreadable: HashSet<Arc<str>>,
    #[cfg(feature = "schedule")]
    schedules: super::firing::Firing,
}

impl Worker {
    fn new<S: State, C>(app: &App<S, C>) -> Self {
        let limits = &app.worker.limits;
        let limit_of = |name: &str| limits.named.get(name).copied().unwrap_or(usize::MAX);
        let now = Instant::now();
        Self {
            names: app.tasks.names().map(|name| (name, Arc::from(name), limit_of(name))).collect(),
            limit: limits.all,
            claims: 0,
            checked: now,
            retained: now,
            unreadable: HashSet::new(),
            #[cfg(feature = "schedule")]
            schedules: super::firing::Firing::default(),
        }
    }

    /// Claims and runs tasks, until the app is closed or dropped.
    async fn work<S: State, C: Send + Sync + 'static>(mut self, app: Weak<App<S, C>>) {
        let mut since = 0;
        loop {
            let Some(strong) = app.upgrade().filter(|app| !app.is_stopping()) else { return };
            let pass = AssertUnwindSafe(self.pass(&strong)).catch_unwind().await;
            drop(strong);
            let (session, wait) = match pass {
                Ok(Ok(Some(pass))) => pass,
                Ok(Ok(None)) => return,
                Ok(Err(error)) => {
                    catch_panic(|| tracing::warn!(%error, "durable tasks are claimed later"));
                    sleep(POLL).await;
                    continue;
                }
                // The store is code of others, and its panics must not end the worker.
                Err(panic) => {
                    catch_panic(|| drop(panic));
                    sleep(POLL).await;
                    continue;
                }
            };
            let waiting = AssertUnwindSafe(session.store.changes(since, wait)).catch_unwind();
            tokio::select! {
                biased;
                () = session.room_freed.notified() => {}
                changed = waiting => match changed {
                    Ok(Ok(now)) => since = now,
                    Ok(Err(_)) | Err(_) => sleep(POLL).await,
                },
            }
        }
    }

    /// Fires the schedules and begins the tasks that are due. Returns the time until the next one is, or `None` if the app is
    /// shutting down.
    async fn pass<S: State, C: Send + Sync + 'static>(
        &mut self,
        app: &Arc<App<S, C>>,
    ) -> Result<Option<(Arc<Session>, Duration)>, StoreError> {
        let session = app.session().await?;
        let _pass = app.worker.begin_pass().await;
        if app.is_stopping() {
            return Ok(None);
        }
        session.renew_in_memory().await;
        self.tidy(&session).await?;
        #[cfg(feature = "schedule")]
        let wait = self.schedules.fire_due(app, &session).await?;
        #[cfg(not(feature = "schedule"))]
        let wait = POLL;
        let wait = wait.min(self.claim(app, &session).await?);
        Ok(Some((session, wait.min(POLL))))
    }

    /// Looks for cancels, and deletes the tasks that ended long ago.
    async fn tidy(&mut self, session: &Session) -> Result<(), StoreError> {
        if self.checked.elapsed() >= POLL {
            self.checked = Instant::now();
            session.check_tasks().await?;
        }
        if self.retained.elapsed() >= RETENTION_PERIOD {
            self.retained = Instant::now();
            session.store.retain_tasks(TaskRetention::default()).await?;
        }
        Ok(())
    }

    /// Claims and begins the tasks that are due and for which there is room. Returns the time until the next one is due.
    async fn claim<S: State, C: Send + Sync + 'static>(
        &mut self,
        app: &Arc<App<S, C>>,
        session: &Arc<Session>,
    ) -> Result<Duration, StoreError> {
        loop {
            let running = session.running_tasks();
            let room = self.limit.saturating_sub(running.values().sum());
            let names = self.names.iter().map(|(name, stored, limit)| {
                let running = running.get(name).copied().unwrap_or_default();
                (Arc::clone(stored), limit.saturating_sub(running))
            });
            let names: Vec<_> = names.filter(|(_, room)| *room > 0).collect();
            if room == 0 || names.is_empty() || app.is_stopping() || !session.may_begin() {
                return Ok(POLL);
            }
            self.claims += 1;
            let mut claim = Claim::new(session.owner(), names, room);
            claim.oldest_first = self.claims.is_multiple_of(OLDEST_EVERY);
            let claimed = session.store.claim(claim).await?;
            for task in &claimed.parked {
                catch_panic(|| {
                    tracing::error!(%task, "a durable task has failed for good: several processes died while they ran it");
                });
            }
            let count = claimed.tasks.len();
            for row in claimed.tasks {
                self.begin(app, session, row).await?;
            }
            if count == 0 {
                return match claimed.next_due {
                    None => Ok(POLL),
                    Some(due) => Ok(due.since(session.store.now().await?)),
                };
            }
        }
    }

    /// Begins a claimed task, or releases it if this process cannot run it now.
    async fn begin<S: State, C: Send + Sync + 'static>(
        &mut self,
        app: &Arc<App<S, C>>,
        session: &Arc<Session>,
        row: TaskRow,
    ) -> Result<(), StoreError> {
        let (id, epoch, name) = (row.task.id, row.epoch, Arc::clone(&row.task.name));
        let begun = match app.tasks.get(&name) {
            Some(task) => begin(app, session, task, row),
            None => Err(NotBegun::Unreadable("the app does not register the task".to_owned())),
        };
        let Err(reason) = begun else { return Ok(()) };
        let delay = reason.delay(epoch);
        let is_said = matches!(reason, NotBegun::Unreadable(_)) && !self.unreadable.insert(Arc::clone(&name));
        if !is_said {
            catch_panic(|| tracing::warn!(name = &*name, %id, %reason, "a durable task is left for later"));
        }
        let mut release = ReleaseTask::new(id, epoch);
        release.delay = delay;
        patiently(|| session.store.release_task(release.clone())).await
    }
}

/// Returns the reason why an app cannot run a stored task, or `None` if it can.
pub(super) fn stuck_reason<C>(task: Option<RegisteredTask<C>>, row: &TaskRow) -> Option<String> {
    match task {
        None => Some(format!("the app does not register the task `{}`", row.task.name)),
        Some(task) => super::attempt::read(task, row).err(),
    }
}

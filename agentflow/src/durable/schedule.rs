//! [`Schedule`]: durable tasks that are made at the times of a calendar.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::Serialize;
use serde_json::value::RawValue;

use super::worker::start_worker;
use crate::{
    RetryPolicy,
    graph::CompiledGraph,
    session::patiently,
    state::State,
    store::{Overlap, ScheduleRow, StoreError, StoredTaskId, Timestamp},
    task::{Calendar, InvalidCalendar, RegisteredSchedule, RunTask, SpawnError, TaskPolicy},
};

/// A schedule that is not registered yet, made by [`CompiledGraph::schedule`].
#[must_use = "nothing is scheduled until `.register()` is called"]
pub struct Schedule<'g, S: State, C = ()> {
    graph: &'g CompiledGraph<S, C>,
    task: &'static str,
    name: Arc<str>,
    expression: Box<str>,
    zone: Box<str>,
    /// The arguments as JSON, or the mistake of an argument or an option.
    args: Result<Vec<u8>, SpawnError>,
    policy: TaskPolicy,
    overlap: Overlap,
}

/// The reason why a schedule was not registered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// The expression or the time zone is wrong.
    #[error(transparent)]
    Calendar(#[from] InvalidCalendar),
    /// The task cannot be spawned.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A schedule in the store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ScheduleInfo {
    /// The name of the schedule.
    pub name: Arc<str>,
    /// The name of its task.
    pub task: Arc<str>,
    /// The time of the next firing.
    pub next_due: SystemTime,
    /// The task of the last firing.
    pub last_task: Option<StoredTaskId>,
    /// Set if this process has not registered the schedule, so that it does not fire it.
    pub is_stale: bool,
}

/// The stored definition of a schedule. If it changes, the next due time is computed anew.
#[derive(Serialize)]
struct Definition<'a> {
    expression: &'a str,
    zone: &'a str,
    args: &'a RawValue,
    policy: &'a TaskPolicy,
    overlap: Overlap,
}

impl<S: State, C: Send + Sync + 'static> CompiledGraph<S, C> {
    /// Makes a durable task at the times of a cron expression, from the registration on: see
    /// [`Calendar`](crate::task::Calendar) for its form. Needs the feature `schedule`.
    ///
    /// Each due time fires once, whatever the number of processes. After an outage only the latest time that was missed fires;
    /// the task can read [the time for which it was made](crate::task::DurableTaskContext::scheduled_for). Processes that are
    /// to fire it register the schedule at each start; one that no process registers any more does not fire, and is
    /// [listed](Self::schedules) as stale. A process with [`task_workers`](crate::CompileOptions::task_workers) of zero fires
    /// none.
    ///
    /// ```
    /// use agentflow::{AgentState, graph, node, store::MemoryStore, task, task::DurableTaskContext};
    ///
    /// #[task]
    /// async fn report(args: String, task: &DurableTaskContext) {
    ///     println!("the report for {args}, due at {:?}", task.scheduled_for());
    /// }
    ///
    /// #[node]
    /// async fn answer(_state: &mut AgentState) {}
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let app = graph! {
    ///     name = "reports";
    ///     answer -> END;
    ///     tasks { report }
    ///     compile { store: MemoryStore::new() }
    /// };
    /// app.schedule::<report>("0 9 * * 1-5", "sales".to_owned()).time_zone("Europe/Berlin").register().await?;
    ///
    /// let error = app.schedule::<report>("0 25 * * *", String::new()).register().await.unwrap_err();
    /// assert!(error.to_string().starts_with("`0 25 * * *` is not a cron expression"));
    /// # app.aclose().await;
    /// # Ok(())
    /// # }
    /// ```
    #[allow(
        clippy::needless_pass_by_value,
        reason = "the arguments belong to the schedule, whatever becomes of them here"
    )]
    pub fn schedule<T: RunTask<C>>(&self, expression: &str, args: T::Args) -> Schedule<'_, S, C> {
        let args = serde_json::to_vec(&args);
        Schedule {
            graph: self,
            task: T::NAME,
            name: T::NAME.into(),
            expression: expression.into(),
            zone: "UTC".into(),
            args: args.map_err(|error| SpawnError::UnstorableArgs { task: T::NAME, reason: error.to_string().into() }),
            policy: TaskPolicy::default(),
            overlap: Overlap::Skip,
        }
    }

    /// Returns the schedules in the app's store, by name.
    ///
    /// # Errors
    ///
    /// Fails if the store does.
    pub async fn schedules(&self) -> Result<Vec<ScheduleInfo>, StoreError> {
        let session = self.app.session().await?;
        let rows = patiently(|| session.store.schedules()).await?;
        let registered = self.app.worker.schedules.lock();
        let info = |row: ScheduleRow| ScheduleInfo {
            is_stale: !registered.contains_key(&row.name),
            name: row.name,
            task: row.task,
            next_due: row.next_due.into(),
            last_task: row.last_task,
        };
        Ok(rows.into_iter().map(info).collect())
    }

    /// Deletes a schedule from the store. Its tasks stay. Returns whether there was one.
    ///
    /// # Errors
    ///
    /// Fails if the store does.
    pub async fn delete_schedule(&self, name: &str) -> Result<bool, StoreError> {
        let session = self.app.session().await?;
        let former = self.app.worker.schedules.lock().remove(name);
        drop(former);
        patiently(|| session.store.delete_schedule(name)).await
    }
}

impl<S: State, C: Send + Sync + 'static> Schedule<'_, S, C> {
    /// Sets the name of the schedule, which is unique in the store. The default is the name of the task.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the time zone of the expression, by its IANA name. The default is `UTC`.
    pub fn time_zone(mut self, zone: &str) -> Self {
        self.zone = zone.into();
        self
    }

    /// Sets what a firing does while the task of the one before has not ended. The default is to leave the firing out.
    pub fn overlap(mut self, overlap: Overlap) -> Self {
        self.overlap = overlap;
        self
    }

    /// Sets the retries of the tasks: see [`DurableTaskBuilder::retry`](crate::task::DurableTaskBuilder::retry).
    pub fn retry(mut self, policy: impl Into<RetryPolicy>) -> Self {
        match policy.into().stored() {
            Some(retry) => self.policy.set_retry(retry),
            None => self.args = Err(SpawnError::RetryPredicate { task: self.task }),
        }
        self
    }

    /// Limits how long each task may take: see [`DurableTaskBuilder::timeout`](crate::task::DurableTaskBuilder::timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.policy.set_timeout(timeout);
        self
    }

    /// Limits how long each attempt of a task may take.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.policy.set_attempt_timeout(timeout);
        self
    }

    /// Stores the schedule, and makes this process fire it until the app is closed. A schedule of this name that is stored
    /// keeps its next due time, unless its definition was another one.
    ///
    /// # Errors
    ///
    /// [`ScheduleError`] if the calendar, the arguments or the task are wrong, the app has no store, or the store fails.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the schedule may be stored, and is not fired by this process.
    pub async fn register(self) -> Result<(), ScheduleError> {
        let calendar = Calendar::new(&self.expression, &self.zone)?;
        let app = &self.graph.app;
        if app.store.is_none() {
            return Err(SpawnError::NoStore { task: self.task }.into());
        }
        app.tasks.check(self.task)?;
        let args = self.args?;
        let unstorable =
            |error: serde_json::Error| SpawnError::UnstorableArgs { task: self.task, reason: error.to_string().into() };
        let policy = serde_json::to_vec(&self.policy).map_err(unstorable)?;
        let definition = Definition {
            expression: &self.expression,
            zone: &self.zone,
            args: serde_json::from_slice(&args).map_err(unstorable)?,
            policy: &self.policy,
            overlap: self.overlap,
        };
        let definition = serde_json::to_vec(&definition).map_err(unstorable)?;
        let session = app.session().await?;
        let now = patiently(|| session.store.now()).await?;
        let row = ScheduleRow::new(Arc::clone(&self.name), self.task, definition.into(), next_after(&calendar, now));
        patiently(|| session.store.put_schedule(row.clone())).await?;
        let registered = RegisteredSchedule {
            task: self.task,
            calendar,
            args: args.into(),
            policy: policy.into(),
            overlap: self.overlap,
        };
        app.worker.schedules.lock().insert(self.name, Arc::new(registered));
        start_worker(app);
        Ok(())
    }
}

impl<S: State, C> fmt::Debug for Schedule<'_, S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schedule")
            .field("name", &self.name)
            .field("task", &self.task)
            .field("expression", &self.expression)
            .field("zone", &self.zone)
            .finish_non_exhaustive()
    }
}

/// Returns the next due time, or the end of time if there is none.
fn next_after(calendar: &Calendar, now: Timestamp) -> Timestamp {
    calendar.next_after(now.into()).map_or(Timestamp::from_micros(i64::MAX), Timestamp::from)
}

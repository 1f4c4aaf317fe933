//! One attempt of a durable task: it runs as a background task of the app, and its end is recorded.

use std::{
    error::Error,
    fmt,
    panic::{AssertUnwindSafe, resume_unwind},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use tokio::time::{Instant, timeout};

use crate::{
    graph::app::App,
    panics::{catch_panic, panic_message, text_of},
    session::{RunningTask, Session, patiently},
    state::State,
    store::{FinishTask, ReleaseTask, StoreError, StoreErrorKind, TaskEnd, TaskRow},
    sync::Mutex,
    task::{
        DurableTaskContext, RegisteredTask, SpawnError, TaskAttempt, TaskContext, TaskError, TaskHandle, TaskPolicy,
    },
};

/// The longest delay after which a task that this process cannot read is due again.
const MAX_UNREADABLE_DELAY: Duration = Duration::from_hours(1);

/// The delay after which a task is due again for which the app's manager had no room.
const NO_ROOM_DELAY: Duration = Duration::from_secs(1);

/// The result of a task's function.
type Ended = Result<(), Box<dyn Error + Send + Sync>>;

/// The reason why a claimed task did not begin.
pub(super) enum NotBegun {
    /// The stored task cannot be read. Another version of the code may be able to.
    Unreadable(String),
    /// The manager did not take it.
    Refused(SpawnError),
}

impl fmt::Display for NotBegun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(reason) => f.write_str(reason),
            Self::Refused(error) => error.fmt(f),
        }
    }
}

impl NotBegun {
    /// Returns the delay after which a task with this number of claims is due again.
    pub(super) fn delay(&self, claims: u64) -> Duration {
        match self {
            Self::Unreadable(_) => {
                let exponent = u32::try_from(claims.saturating_sub(1)).unwrap_or(u32::MAX).min(12);
                Duration::from_secs(1 << exponent).min(MAX_UNREADABLE_DELAY)
            }
            Self::Refused(_) => NO_ROOM_DELAY,
        }
    }
}

/// Returns the policy of a stored task, if this process can read the task.
pub(super) fn read<C>(task: RegisteredTask<C>, row: &TaskRow) -> Result<TaskPolicy, String> {
    task.check_args(&row.task.args).map_err(|error| text_of(&error))?;
    serde_json::from_slice(&row.task.policy).map_err(|error| format!("the stored policy cannot be read: {error}"))
}

/// Begins an attempt of a task that was claimed, and records its end in the background.
pub(super) fn begin<S: State, C: Send + Sync + 'static>(
    app: &Arc<App<S, C>>,
    session: &Arc<Session>,
    task: RegisteredTask<C>,
    row: TaskRow,
) -> Result<(), NotBegun> {
    let policy = read(task, &row).map_err(NotBegun::Unreadable)?;
    let running = session.begin_task(row.task.id, task.name(), row.epoch);
    let record = Arc::new(Record {
        session: Arc::clone(session),
        began: Instant::now(),
        end: Mutex::default(),
        is_recorded: AtomicBool::new(false),
        policy,
        row,
    });
    let (of_task, services) = (Arc::clone(&record), Arc::clone(&app.services));
    let work = move |context: TaskContext| async move { run_attempt(&*services, task, &of_task, context).await };
    let mut builder = app.manager.create_task_with_context(work).name(task.name());
    builder = builder.context("durable_task", record.row.task.id.to_string());
    for (key, value) in record.policy.context() {
        builder = builder.context(key.clone(), value.clone());
    }
    if let Some(budget) = record.policy.timeout() {
        builder = builder.timeout(budget.saturating_sub(record.row.consumed));
    }
    let handle = builder.spawn().map_err(NotBegun::Refused)?;
    tokio::spawn(supervise(Arc::downgrade(app), record, handle, running));
    Ok(())
}

/// An attempt, and its end.
struct Record {
    session: Arc<Session>,
    row: TaskRow,
    policy: TaskPolicy,
    began: Instant,
    /// The end, once the task's function has returned.
    end: Mutex<Option<TaskEnd>>,
    /// Set once the store has the end. The supervisor reads it after it has the result of the task, which synchronizes.
    is_recorded: AtomicBool,
}

/// Runs the task's function, and records its end, so that the background task ends after that.
async fn run_attempt<C: Sync>(services: &C, task: RegisteredTask<C>, record: &Record, context: TaskContext) -> Ended {
    let Record { row, policy, .. } = record;
    let token = context.token().clone();
    let mut context = DurableTaskContext::new(row.task.id, row.failed_attempts.saturating_add(1), context);
    if let (Some(_), Some(due)) = (&row.task.schedule, row.task.due) {
        context = context.with_scheduled_for(due.into());
    }
    let attempt = async {
        let attempt = task.run(&row.task.args, TaskAttempt::new(services, &context))?;
        match policy.attempt_timeout() {
            None => attempt.await.map_err(into_source),
            Some(limit) => match timeout(limit, attempt).await {
                Ok(ended) => ended.map_err(into_source),
                Err(_) => Err(format!("the attempt timed out after {limit:?}").into()),
            },
        }
    };
    let (ended, panic): (Ended, _) = match AssertUnwindSafe(attempt).catch_unwind().await {
        Ok(ended) => (ended, None),
        Err(payload) => {
            let message = panic_message(payload);
            (Err(format!("panicked: {message}").into()), Some(message))
        }
    };
    let end = match &ended {
        Ok(()) => TaskEnd::Done,
        // A task that was asked to stop, and returns an error, has not failed: it was stopped.
        Err(_) if token.is_cancelled() => return ended,
        Err(error) => record.failed(text_with_sources(&**error)).await,
    };
    *record.end.lock() = Some(end.clone());
    if record.finish(end).await {
        record.is_recorded.store(true, Ordering::Release);
    }
    if let Some(message) = panic {
        resume_unwind(Box::new(String::from(message)));
    }
    ended
}

impl Record {
    /// Returns the end of an attempt that has failed: the next attempt, or the failure of the task.
    async fn failed(&self, error: String) -> TaskEnd {
        let first = self.row.first_claimed_at.unwrap_or(self.row.updated_at);
        let since_first = match self.session.store.now().await {
            Ok(now) => now.since(first),
            Err(_) => self.began.elapsed(),
        };
        match self.policy.next_attempt(self.row.failed_attempts.saturating_add(1), since_first) {
            Some(delay) => {
                let (name, id) = (&*self.row.task.name, self.row.task.id);
                catch_panic(|| {
                    tracing::warn!(name, %id, error, retry_in = ?delay, "an attempt of a durable task failed");
                });
                TaskEnd::Retry { error, delay }
            }
            None => TaskEnd::Failed { error },
        }
    }

    /// Records an end. Returns whether the store has an answer, one way or the other.
    async fn finish(&self, end: TaskEnd) -> bool {
        let mut request = FinishTask::new(self.row.task.id, self.row.epoch, end);
        request.consumed = self.began.elapsed();
        let finished = patiently(|| self.session.store.finish_task(request.clone())).await;
        self.was_taken(finished)
    }

    /// Gives the task up: it runs again.
    async fn release(&self, delay: Duration) -> bool {
        let mut request = ReleaseTask::new(self.row.task.id, self.row.epoch);
        request.delay = delay;
        request.consumed = self.began.elapsed();
        let released = patiently(|| self.session.store.release_task(request.clone())).await;
        self.was_taken(released)
    }

    fn was_taken(&self, answer: Result<(), StoreError>) -> bool {
        let (name, id) = (&*self.row.task.name, self.row.task.id);
        match answer {
            Ok(()) => true,
            Err(error) if *error.kind() == StoreErrorKind::Fenced => {
                catch_panic(|| {
                    tracing::warn!(name, %id, "the end of a durable task was not recorded: it has another owner");
                });
                true
            }
            Err(error) => {
                catch_panic(|| tracing::error!(name, %id, %error, "the end of a durable task was not recorded"));
                false
            }
        }
    }
}

/// Waits for the background task of an attempt, and records the end of one that was cut off.
async fn supervise<S: State, C>(
    app: Weak<App<S, C>>,
    record: Arc<Record>,
    mut handle: TaskHandle<()>,
    running: RunningTask,
) {
    let mut is_stopped = false;
    let ended = loop {
        tokio::select! {
            biased;
            ended = &mut handle => break ended,
            () = running.token.cancelled(), if !is_stopped => {
                is_stopped = true;
                handle.cancel();
            }
        }
    };
    if record.is_recorded.load(Ordering::Acquire) {
        return;
    }
    let end = record.end.lock().take();
    let is_cancelled = running.is_cancelled();
    // An app that is dropped has shut down too.
    let is_shutdown = app.upgrade().is_none_or(|app| app.is_stopping());
    let end = match (end, ended) {
        (Some(end), _) => Some(end),
        (None, Err(error @ TaskError::TimedOut { .. })) => Some(TaskEnd::Failed { error: error.to_string() }),
        (None, _) if is_cancelled => Some(TaskEnd::Cancelled),
        // It lost its place in the manager, or this process has lost the task to itself.
        (None, Err(TaskError::Evicted)) => None,
        (None, _) if is_shutdown || is_stopped => None,
        (None, _) => Some(TaskEnd::Cancelled),
    };
    if let Some(end) = end {
        record.finish(end).await;
        return;
    }
    if is_shutdown {
        running.keep();
    }
    record.release(if is_shutdown { Duration::ZERO } else { NO_ROOM_DELAY }).await;
}

/// Returns the error of the task's own.
fn into_source(error: TaskError) -> Box<dyn Error + Send + Sync> {
    match error {
        TaskError::Failed(source) => source,
        other => other.into(),
    }
}

/// Returns the text of an error with those of its sources, as one line.
fn text_with_sources(error: &(dyn Error + Send + Sync)) -> String {
    crate::panics::guarded_text(|| {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    })
}

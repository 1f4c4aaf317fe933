//! The log lines of a manager and the span around a task, through `tracing`. Without a subscriber nothing is formatted.
//!
//! A subscriber is user code, and so are the values that it formats: their panics are swallowed, because a line must not
//! change what it reports.
//!
//! The table of all lines is in the documentation of [`BackgroundTaskManager`](crate::BackgroundTaskManager).

use std::{borrow::Cow, collections::HashSet, fmt, sync::Arc, time::Duration};

use tracing::field;

use super::{
    super::{
        error::SpawnError,
        info::Json,
        outcome::{TaskOutcome, TimeoutKind},
    },
    task::{TaskEnd, TaskRecord},
};
use crate::{panics::catch_panic, span::GuardedSpan, suggest};

/// Creates the task's span. It is a root that follows from the spawner's span, because the task may outlive that one.
pub(crate) fn span(task: &TaskRecord) -> GuardedSpan {
    let name = &task.spec.name;
    let span = GuardedSpan::new(|| tracing::info_span!(parent: None, "agentflow.task", %name, id = task.id.get()));
    span.follows_from_current();
    span
}

/// Logs the end of a task. `overrun` is the time by which a task that ended by itself was late, because it blocked its
/// thread.
pub(crate) fn ended(task: &TaskRecord, end: &TaskEnd, overrun: Option<Duration>) {
    catch_panic(|| log_end(task, end, overrun));
}

fn log_end(task: &TaskRecord, end: &TaskEnd, overrun: Option<Duration>) {
    macro_rules! line {
        ($level:ident, $($message:tt)+) => {
            tracing::$level!(
                target: "agentflow::task",
                name = %task.spec.name,
                id = task.id.get(),
                age = ?end.age(),
                outcome = end.outcome.as_str(),
                run = task.origin.as_ref().map(|origin| field::display(origin.run())),
                node = task.origin.as_ref().map(|origin| field::display(origin.node())),
                context = (!task.spec.context.is_empty()).then(|| field::display(Json(&task.spec.context))),
                error = end.error.as_deref(),
                timeout = task.spec.timeout.map(field::debug),
                limit = end.limit.map(TimeoutKind::as_str),
                attempts = (task.attempt() > 1).then(|| task.attempt()),
                key = task.spec.key().map(|key| field::display(Arc::clone(key))),
                replaced_by = task.spec.replaced_by().map(|by| field::display(Arc::clone(by))),
                overrun = overrun.map(field::debug),
                $($message)+
            )
        };
    }
    match end.outcome {
        TaskOutcome::Completed if let Some(overrun) = overrun => {
            line!(warn, "background task blocked its thread until {overrun:?} after its timeout, then completed");
        }
        TaskOutcome::Completed => line!(debug, "background task completed"),
        TaskOutcome::Failed => line!(error, "background task failed"),
        TaskOutcome::Panicked => line!(error, "background task panicked"),
        TaskOutcome::TimedOut => match end.limit {
            Some(TimeoutKind::Attempt) => line!(warn, "background task timed out in its last attempt"),
            Some(TimeoutKind::Idle) => line!(warn, "background task timed out without a heartbeat"),
            Some(TimeoutKind::Queue) => line!(warn, "background task timed out in the queue"),
            Some(TimeoutKind::Total) | None => line!(warn, "background task timed out"),
        },
        TaskOutcome::Cancelled => line!(debug, "background task cancelled"),
        TaskOutcome::Aborted if task.is_unfinished() => {
            line!(warn, "background task aborted: it did not end within its grace period when the manager was closed");
        }
        TaskOutcome::Aborted => line!(debug, "background task aborted"),
        TaskOutcome::Evicted => line!(warn, "background task dropped to make room for another one"),
    }
}

/// Logs a failed attempt that will be followed by another one.
pub(crate) fn attempt_failed(task: &TaskRecord, attempt: u32, error: &str, retry_in: Duration) {
    catch_panic(|| {
        tracing::warn!(
            target: "agentflow::task",
            name = %task.spec.name,
            id = task.id.get(),
            attempt,
            retry_in = ?retry_in,
            error,
            run = task.origin.as_ref().map(|origin| field::display(origin.run())),
            node = task.origin.as_ref().map(|origin| field::display(origin.node())),
            context = (!task.spec.context.is_empty()).then(|| field::display(Json(&task.spec.context))),
            key = task.spec.key().map(|key| field::display(Arc::clone(key))),
            "background task failed, and will be tried again"
        );
    });
}

/// Logs a refused spawn: at debug level, because the caller has the error.
pub(crate) fn rejected(name: &str, why: &SpawnError) {
    catch_panic(|| tracing::debug!(target: "agentflow::task", name, reason = why.as_str(), "background task rejected"));
}

/// Logs the limits of names that no task had, each with the one of the `known` names that may have been meant.
pub(crate) fn unused_limits(names: &[Cow<'_, str>], known: &HashSet<Cow<'_, str>>) {
    let known: Vec<_> = known.iter().map(|name| &**name).collect();
    for name in names {
        catch_panic(|| {
            tracing::warn!(
                target: "agentflow::task",
                name = &**name,
                did_you_mean = suggest::closest(name, &known),
                "no background task had the name that `max_running_named` limits"
            );
        });
    }
}

/// Logs the tasks that are cancelled because the last owner of their manager was dropped.
pub(crate) fn orphaned(tasks: &[Arc<TaskRecord>]) {
    catch_panic(|| log_orphans(tasks));
}

fn log_orphans(tasks: &[Arc<TaskRecord>]) {
    tracing::warn!(
        target: "agentflow::task",
        count = tasks.len(),
        tasks = %NameList(tasks),
        "the task manager was dropped without being closed: its tasks are cancelled; call `close`, or the app's `aclose`"
    );
}

/// A list such as `upload #7, send #9 and 3 more`.
struct NameList<'a>(&'a [Arc<TaskRecord>]);

impl fmt::Display for NameList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Twenty names are enough to see what was lost, and still one line.
        const SHOWN: usize = 20;
        for (index, task) in self.0.iter().take(SHOWN).enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{} #{}", task.spec.name, task.id)?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

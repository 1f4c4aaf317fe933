//! [`finish`]: the end of a task.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    super::{error::TaskError, outcome::TaskOutcome},
    current::CurrentTask,
    log,
    task::{TaskEnd, TaskResult},
};
use crate::panics::catch_panic;

/// The resolution of tokio's timers: an end that is late by no more than this is no overrun.
const TIMER_STEP: Duration = Duration::from_millis(1);

/// Ends a task with its result, which its handle can take from then on.
///
/// The end is logged before it is recorded: a caller that waited for the task may end the process at once, and the line
/// must be written by then.
pub(super) fn finish<T: Send + 'static>(current: &CurrentTask, result: Result<T, TaskError>) {
    let (outcome, error, limit) = match &result {
        Ok(_) => (TaskOutcome::Completed, None, None),
        Err(error) => (error.outcome(), error.text(), error.limit()),
    };
    let task = &current.task;
    let result = if task.has_handle() {
        Some(Box::new(result) as TaskResult)
    } else {
        catch_panic(|| drop(result));
        None
    };
    let now = Instant::now();
    let end = TaskEnd::new(outcome, task.age(now), error, limit);
    let overrun = matches!(outcome, TaskOutcome::Completed | TaskOutcome::Failed)
        .then(|| task.deadline().and_then(|deadline| now.checked_duration_since(deadline)))
        .flatten()
        .filter(|overrun| *overrun > TIMER_STEP);
    log::ended(task, &end, overrun);
    if !outcome.ended_by_itself() {
        current.registry.log_if_orphan(task);
    }
    current.registry.task_ended(task, end, result);
}

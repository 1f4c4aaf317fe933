//! [`RunTask`]: the way in which an app runs a durable task.

use super::{context::TaskAttempt, definition::Task};
use crate::task::TaskError;

/// A durable task that an app with services `C` can run. `#[task]` implements it for all services that provide what the
/// task injects.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a durable task",
    label = "not a durable task",
    note = "annotate its `async fn` with `#[agentflow::task]`"
)]
pub trait RunTask<C>: Task {
    /// Runs one attempt.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped at its current await when the attempt times out, or the task is cancelled or released and
    /// does not end within its grace period.
    fn run(args: Self::Args, attempt: TaskAttempt<'_, C>) -> impl Future<Output = Result<(), TaskError>> + Send;
}

//! [`TaskOutcome`] and [`TimeoutKind`]: how a task ends. [`TaskOutput`]: the types that a task may return.

use std::{error::Error, fmt};

use serde::Serialize;

use crate::error::NodeError;

/// The end of a task. Every task that was spawned gets exactly one. In JSON it is the word of [`as_str`](Self::as_str).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TaskOutcome {
    /// The task ran to its end, and returned `()` or `Ok`.
    Completed,
    /// The task ran to its end, and returned `Err`.
    Failed,
    /// The task panicked, or its destructor did when it was dropped.
    Panicked,
    /// The task was dropped because its time was over: see [`TimeoutKind`].
    TimedOut,
    /// The task was cancelled, and dropped where it awaited.
    Cancelled,
    /// The task was dropped without being cancelled first, because it ignored its cancellation token for longer than
    /// its grace period, or because the runtime shut down.
    Aborted,
    /// The task was dropped to make room for another one: see [`OnFull::DropOldest`](crate::task::OnFull::DropOldest).
    Evicted,
}

impl TaskOutcome {
    /// Returns the outcome as one word for logs and metrics, such as `timed_out`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Panicked => "panicked",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Aborted => "aborted",
            Self::Evicted => "evicted",
        }
    }

    /// Returns whether the task ran to its end, and was not cut off.
    pub(super) const fn is_by_itself(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Panicked)
    }
}

impl fmt::Display for TaskOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::TimedOut => "timed out",
            other => other.as_str(),
        })
    }
}

/// The timeout that was over when a task timed out. In JSON it is the word of [`as_str`](Self::as_str).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TimeoutKind {
    /// The limit of its whole life: [`timeout`](crate::task::TaskBuilder::timeout).
    Total,
    /// The limit of its last attempt: [`attempt_timeout`](crate::task::TaskBuilder::attempt_timeout).
    Attempt,
    /// The limit of the time between two heartbeats: [`idle_timeout`](crate::task::TaskBuilder::idle_timeout).
    Idle,
    /// The limit of the time in the queue: [`queue_timeout`](crate::task::TaskBuilder::queue_timeout).
    Queue,
}

impl TimeoutKind {
    /// Returns the timeout as one word for logs and metrics, such as `idle`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Attempt => "attempt",
            Self::Idle => "idle",
            Self::Queue => "queue",
        }
    }
}

/// The beginning of a sentence that ends with the time, such as `timed out after`.
impl fmt::Display for TimeoutKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Total => "timed out after",
            Self::Attempt => "timed out: its last attempt took longer than",
            Self::Idle => "timed out: it sent no heartbeat for",
            Self::Queue => "timed out: it was queued for longer than",
        })
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A result of a background task: `()`, or a `Result` whose error converts into a [`NodeError`], as that of a node does.
///
/// These are the errors that convert into a `Box<dyn Error + Send + Sync>`, and `NodeError` itself, so that a node and a
/// task may share a function. No other type is accepted, so that no error is lost by being a mere value.
///
/// ```
/// use agentflow::{NodeError, task::TaskError};
///
/// async fn send_invoice(id: &str) -> Result<u32, NodeError> {
///     Ok(id.parse()?)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let tasks = agentflow::BackgroundTaskManager::new();
/// let Err(TaskError::Failed(error)) = tasks.create_task(send_invoice("owl")).spawn()?.await else { panic!() };
/// assert!(error.is::<std::num::ParseIntError>());
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "a background task returns `()` or a `Result`, not `{Self}`",
    label = "this task returns `{Self}`",
    note = "to get a value from the task's handle, return `Ok::<_, std::convert::Infallible>(value)`; to drop it, \
            end with `;`",
    note = "the error of the `Result` is any `std::error::Error + Send + Sync + 'static`, `anyhow::Error` or `String`"
)]
pub trait TaskOutput: sealed::Sealed + Send + 'static {
    /// The value that awaiting the task's handle returns.
    type Value: Send + 'static;

    #[doc(hidden)]
    fn into_result(self) -> Result<Self::Value, Box<dyn Error + Send + Sync>>;
}

impl sealed::Sealed for () {}

impl TaskOutput for () {
    type Value = ();

    fn into_result(self) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(())
    }
}

mod never {
    /// Names the return type of a function pointer. For `fn() -> !` that is the never type, which has no stable name.
    pub trait Returned {
        type Type;
    }

    impl<T> Returned for fn() -> T {
        type Type = T;
    }
}

/// The type of a `loop` that never ends, and so the output of `async { loop { .. } }`.
type Never = <fn() -> ! as never::Returned>::Type;

impl sealed::Sealed for Never {}

#[diagnostic::do_not_recommend]
impl TaskOutput for Never {
    type Value = Never;

    fn into_result(self) -> Result<Never, Box<dyn Error + Send + Sync>> {
        self
    }
}

impl<T, E> sealed::Sealed for Result<T, E> {}

impl<T, E> TaskOutput for Result<T, E>
where
    T: Send + 'static,
    E: Into<NodeError> + Send + 'static,
{
    type Value = T;

    fn into_result(self) -> Result<T, Box<dyn Error + Send + Sync>> {
        self.map_err(|error| error.into().into_source())
    }
}

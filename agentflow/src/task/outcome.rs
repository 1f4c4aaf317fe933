//! How a task ends: [`TaskOutcome`], [`TaskError`], and what a task may return, [`TaskOutput`].

use std::{
    error::Error,
    fmt::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

/// How a task ended. Every task that was spawned gets exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TaskOutcome {
    /// It ran to its end, and returned `()` or `Ok`.
    Completed,
    /// It ran to its end, and returned `Err`.
    Failed,
    /// It panicked, or its destructor did when it was dropped.
    Panicked,
    /// It was dropped because its time was over: see [`TimeoutKind`].
    TimedOut,
    /// It was cancelled, and dropped where it awaited.
    Cancelled,
    /// It was dropped without being asked first, or because it ignored its cancellation token for longer than the
    /// grace, or because the runtime shut down.
    Aborted,
    /// It was dropped to make room for another one: see [`OnFull::DropOldest`](crate::task::OnFull::DropOldest).
    Evicted,
}

impl TaskOutcome {
    /// The outcome as one word for logs and metrics, such as `timed_out`.
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
}

impl fmt::Display for TaskOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::TimedOut => "timed out",
            other => other.as_str(),
        })
    }
}

/// Why awaiting a [`TaskHandle`](crate::task::TaskHandle) gave no value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The task returned this error. `source.downcast_ref::<MyError>()` gives it back with its type.
    #[error("the background task failed")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
    /// The task panicked.
    #[error("the background task panicked: {message}")]
    #[non_exhaustive]
    Panicked {
        /// What the panic said.
        message: String,
    },
    /// The task's time was over before it was done.
    #[error("the background task {limit} {after:?}")]
    #[non_exhaustive]
    TimedOut {
        /// How much time it had.
        after: Duration,
        /// For what.
        limit: TimeoutKind,
    },
    /// The task was cancelled.
    #[error("the background task was cancelled")]
    Cancelled,
    /// The task was dropped from outside: see [`TaskOutcome::Aborted`].
    #[error("the background task was aborted")]
    Aborted,
    /// The task was dropped to make room for another one.
    #[error("the background task was dropped to make room for another one")]
    Evicted,
}

/// What a task that timed out had no more time for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TimeoutKind {
    /// For all of its life: [`timeout`](crate::task::TaskBuilder::timeout).
    Total,
    /// For its last attempt: [`attempt_timeout`](crate::task::TaskBuilder::attempt_timeout).
    Attempt,
    /// Until its next sign of life: [`idle_timeout`](crate::task::TaskBuilder::idle_timeout).
    Idle,
    /// To wait for its turn: [`queue_timeout`](crate::task::TaskBuilder::queue_timeout).
    Queue,
}

impl TimeoutKind {
    /// The limit as one word for logs and metrics, such as `idle`.
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

/// `timed out after`, as the beginning of a sentence that ends with the time.
impl fmt::Display for TimeoutKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Total => "timed out after",
            Self::Attempt => "timed out: its last attempt took longer than",
            Self::Idle => "timed out: it gave no sign of life for",
            Self::Queue => "timed out: its turn did not come within",
        })
    }
}

impl TaskError {
    /// The outcome that goes with this error; never [`Completed`](TaskOutcome::Completed).
    #[must_use]
    pub const fn outcome(&self) -> TaskOutcome {
        match self {
            Self::Failed(_) => TaskOutcome::Failed,
            Self::Panicked { .. } => TaskOutcome::Panicked,
            Self::TimedOut { .. } => TaskOutcome::TimedOut,
            Self::Cancelled => TaskOutcome::Cancelled,
            Self::Aborted => TaskOutcome::Aborted,
            Self::Evicted => TaskOutcome::Evicted,
        }
    }

    /// What the error or the panic said, with its sources, as one line; `None` if the outcome says it all.
    pub(super) fn text(&self) -> Option<Arc<str>> {
        let source = match self {
            Self::Failed(source) => source,
            Self::Panicked { message } => return Some(message.as_str().into()),
            _ => return None,
        };
        let chain = || {
            let mut text = source.to_string();
            let mut cause = source.source();
            while let Some(error) = cause {
                // Writing to a string can't fail.
                let _ = write!(text, ": {error}");
                cause = error.source();
            }
            text
        };
        let chain = catch_unwind(AssertUnwindSafe(chain));
        Some(chain.unwrap_or_else(|_| "the error panicked when it was formatted".to_owned()).into())
    }

    pub(super) const fn limit(&self) -> Option<TimeoutKind> {
        match self {
            Self::TimedOut { limit, .. } => Some(*limit),
            _ => None,
        }
    }
}

mod sealed {
    pub trait Sealed {}
}

/// What a background task may return: `()`, or a `Result` whose error can become a `Box<dyn Error + Send + Sync>`.
///
/// Nothing else, so that no error is lost by being a mere value.
#[diagnostic::on_unimplemented(
    message = "a background task returns `()` or a `Result`, not `{Self}`",
    label = "this task returns `{Self}`",
    note = "to get a value from the task's handle, return `Ok::<_, std::convert::Infallible>(value)`; to drop it, \
            end with `;`",
    note = "the error of the `Result` is any `std::error::Error + Send + Sync + 'static`, `anyhow::Error` or `String`"
)]
pub trait TaskOutput: sealed::Sealed + Send + 'static {
    /// What awaiting the task's handle gives.
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
    /// What `F` returns. For `fn() -> !` it is the type that has no other name yet.
    pub trait Returned {
        type Type;
    }

    impl<T> Returned for fn() -> T {
        type Type = T;
    }
}

/// The type of a `loop` that never ends: what `async { loop { .. } }` returns.
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
    E: Into<Box<dyn Error + Send + Sync>> + Send + 'static,
{
    type Value = T;

    fn into_result(self) -> Result<T, Box<dyn Error + Send + Sync>> {
        self.map_err(Into::into)
    }
}

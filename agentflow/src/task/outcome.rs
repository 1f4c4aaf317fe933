//! [`TaskOutcome`] and [`TimeoutKind`]: the end of a task, and the timeout that was its cause.

use std::fmt;

use serde::Serialize;

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
    pub(super) const fn ended_by_itself(self) -> bool {
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

/// Writes the beginning of a sentence that ends with the time, such as `timed out after`.
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

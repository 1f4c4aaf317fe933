//! [`SpawnError`] and [`TaskError`]: the reasons why a task was not spawned, or did not complete.

use std::{any::Any, error::Error, fmt::Write, sync::Arc, time::Duration};

use super::outcome::{TaskOutcome, TimeoutKind};
use crate::{
    panics::{guarded_text, panic_message},
    store::{StoreError, StoreErrorKind},
};

/// The reason why a task was not spawned. Its future was dropped without being polled; a durable task was not stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The manager is closed, its last owner was dropped, or its runtime has shut down. While a manager drains, it
    /// refuses spawns that don't belong to a live task or a live run.
    #[error("the task manager is closed")]
    Closed,
    /// The run whose node received this manager has ended. A node's manager spawns while its run lives; what is to go on
    /// afterwards uses the app's own manager, [`task_manager`](crate::CompiledGraph::task_manager).
    #[error("the run of this task manager has ended: spawn with the app's own `task_manager()`")]
    RunEnded,
    /// There is no runtime to run the task on: neither was the manager made within one, nor was the task spawned
    /// within one.
    #[error("there is no tokio runtime here: make the task manager, or spawn the task, within one")]
    NoRuntime,
    /// The manager has as many tasks as [`max_tasks`](crate::task::TaskManagerOptions::max_tasks) allows.
    #[error("the task manager is full: wait for a free slot with `spawn_wait`, or set `OnFull::DropOldest`")]
    Full,
    /// A live task has the same key: see [`OnDuplicateKey::Skip`](crate::task::OnDuplicateKey::Skip).
    #[error("a task with this key already exists")]
    DuplicateKey,
    /// A durable task was spawned through a manager whose app has no store.
    #[error("the durable task `{task}` needs a store: `compile {{ store: store }}`")]
    #[non_exhaustive]
    NoStore {
        /// The name of the task.
        task: &'static str,
    },
    /// The app does not register the durable task, so that no process of its kind would run it.
    #[error("the app does not register the durable task `{task}`: add it to the graph, `tasks {{ .. }}`")]
    #[non_exhaustive]
    Unregistered {
        /// The name of the task.
        task: &'static str,
    },
    /// The arguments of a durable task cannot be written as JSON.
    #[error("the arguments of the durable task `{task}` cannot be written as JSON: {reason}")]
    #[non_exhaustive]
    UnstorableArgs {
        /// The name of the task.
        task: &'static str,
        /// The text of serde's error.
        reason: Box<str>,
    },
    /// The retry policy of a durable task has a predicate, [`RetryPolicy::when`](crate::RetryPolicy::when), which cannot be
    /// stored.
    #[error("the retry policy of the durable task `{task}` is stored, and its predicate, `when`, cannot be")]
    #[non_exhaustive]
    RetryPredicate {
        /// The name of the task.
        task: &'static str,
    },
    /// The store did not take the durable task. It may be stored all the same, if the store's answer was lost.
    #[error("the durable task is not stored: {reason}")]
    #[non_exhaustive]
    NotStored {
        /// The kind of the store's error.
        kind: StoreErrorKind,
        /// The text of the store's error.
        reason: Box<str>,
    },
}

impl SpawnError {
    /// Returns the reason as one word for logs and metrics, such as `full`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::RunEnded => "run_ended",
            Self::NoRuntime => "no_runtime",
            Self::Full => "full",
            Self::DuplicateKey => "duplicate_key",
            Self::NoStore { .. } => "no_store",
            Self::Unregistered { .. } => "unregistered",
            Self::UnstorableArgs { .. } => "unstorable_args",
            Self::RetryPredicate { .. } => "retry_predicate",
            Self::NotStored { .. } => "not_stored",
        }
    }

    /// Creates the error of a task that the store did not take.
    pub(crate) fn not_stored(error: &StoreError) -> Self {
        Self::NotStored { kind: error.kind().clone(), reason: error.to_string().into() }
    }
}

/// The reason why awaiting a [`TaskHandle`](crate::task::TaskHandle) returned no value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The task returned this error. `source.downcast_ref::<MyError>()` returns it with its type.
    #[error("the background task failed")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
    /// The task panicked.
    #[error("the background task panicked: {message}")]
    #[non_exhaustive]
    Panicked {
        /// The panic's message.
        message: String,
    },
    /// The task's time was over before it was done.
    #[error("the background task {limit} {after:?}")]
    #[non_exhaustive]
    TimedOut {
        /// The time that the task had.
        after: Duration,
        /// The timeout that was over.
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

impl TaskError {
    /// Returns the outcome of a task that ended with this error; never [`Completed`](TaskOutcome::Completed).
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

    pub(super) fn panicked(payload: Box<dyn Any + Send>) -> Self {
        Self::Panicked { message: panic_message(payload).into() }
    }

    /// Returns the message of the error or panic, with its sources, as one line; `None` for all other outcomes.
    pub(crate) fn text(&self) -> Option<Arc<str>> {
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
        // The error's `Display` is user code: its panic must not change the task's outcome.
        Some(guarded_text(chain).into())
    }

    /// Returns the timeout that was over, if one was.
    pub(super) const fn limit(&self) -> Option<TimeoutKind> {
        match self {
            Self::TimedOut { limit, .. } => Some(*limit),
            _ => None,
        }
    }
}

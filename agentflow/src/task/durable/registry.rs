//! [`TaskRegistry`]: the durable tasks that an app runs, by name.

use std::{collections::BTreeMap, fmt};

use futures_util::future::BoxFuture;

use super::{context::TaskAttempt, definition::Task, run_task::RunTask};
use crate::task::{SpawnError, TaskError};

/// The error of arguments that are stored in a form which the task cannot read: another version of the code may know them.
/// No attempt was made.
#[derive(Debug, thiserror::Error)]
#[error("the stored arguments of the durable task `{task}` cannot be read: {source}")]
#[non_exhaustive]
pub struct UndecodableArgs {
    /// The name of the task.
    pub task: &'static str,
    /// The error of serde.
    #[source]
    pub source: serde_json::Error,
}

/// The future of one attempt of a durable task.
type AttemptFuture<'a> = BoxFuture<'a, Result<(), TaskError>>;

/// Decodes the arguments and begins an attempt.
type Run<C> = for<'a> fn(&[u8], TaskAttempt<'a, C>) -> Result<AttemptFuture<'a>, UndecodableArgs>;

/// A durable task that an app with services `C` runs.
pub struct RegisteredTask<C> {
    name: &'static str,
    run: Run<C>,
    check_args: fn(&[u8]) -> Result<(), UndecodableArgs>,
}

impl<C: Sync> RegisteredTask<C> {
    /// Returns the entry of a task.
    #[must_use]
    pub const fn of<T: RunTask<C>>() -> Self {
        Self { name: T::NAME, run: run::<T, C>, check_args: |args| decode::<T>(args).map(drop) }
    }

    /// Decodes the stored arguments and returns the future of an attempt.
    ///
    /// # Errors
    ///
    /// [`UndecodableArgs`] if the arguments are of another form. A failure of the task itself is the future's.
    pub fn run<'a>(&self, args: &[u8], attempt: TaskAttempt<'a, C>) -> Result<AttemptFuture<'a>, UndecodableArgs> {
        (self.run)(args, attempt)
    }
}

impl<C> RegisteredTask<C> {
    /// Returns the name under which the task is stored.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Fails if the stored arguments cannot be decoded.
    ///
    /// # Errors
    ///
    /// [`UndecodableArgs`] if the arguments are of another form.
    pub fn check_args(&self, args: &[u8]) -> Result<(), UndecodableArgs> {
        (self.check_args)(args)
    }
}

fn decode<T: Task>(args: &[u8]) -> Result<T::Args, UndecodableArgs> {
    serde_json::from_slice(args).map_err(|source| UndecodableArgs { task: T::NAME, source })
}

fn run<'a, T: RunTask<C>, C: Sync>(
    args: &[u8],
    attempt: TaskAttempt<'a, C>,
) -> Result<AttemptFuture<'a>, UndecodableArgs> {
    Ok(Box::pin(T::run(decode::<T>(args)?, attempt)))
}

impl<C> Clone for RegisteredTask<C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for RegisteredTask<C> {}

impl<C> fmt::Debug for RegisteredTask<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RegisteredTask").field(&self.name).finish()
    }
}

/// The durable tasks that an app runs, by name.
pub struct TaskRegistry<C>(BTreeMap<&'static str, RegisteredTask<C>>);

impl<C> TaskRegistry<C> {
    /// Returns the task of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<RegisteredTask<C>> {
        self.0.get(name).copied()
    }

    /// Fails if there is no task of this name, as a [`DurableSink`](super::DurableSink) does.
    #[doc(hidden)]
    pub fn check(&self, task: &'static str) -> Result<(), SpawnError> {
        if self.0.contains_key(task) { Ok(()) } else { Err(SpawnError::Unregistered { task }) }
    }

    /// Returns whether the app runs no durable task.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }
}

impl<C> FromIterator<RegisteredTask<C>> for TaskRegistry<C> {
    fn from_iter<I: IntoIterator<Item = RegisteredTask<C>>>(tasks: I) -> Self {
        Self(tasks.into_iter().map(|task| (task.name, task)).collect())
    }
}

impl<C> fmt::Debug for TaskRegistry<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

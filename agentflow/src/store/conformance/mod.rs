//! A suite of checks that every [`Store`](super::Store) has to pass.
//!
//! A test of a store implements [`Fixture`], which opens handles on one data set, and calls [`run`]. Each check has a data
//! set of its own, and two handles on it, each of which stands for a process.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//!
//! use agentflow::store::{
//!     MemoryStore, Store,
//!     conformance::{self, Fixture, FixtureFuture},
//! };
//!
//! #[derive(Debug)]
//! struct Memory(MemoryStore);
//!
//! impl Fixture for Memory {
//!     fn open(&self) -> FixtureFuture<'_, Arc<dyn Store>> {
//!         Box::pin(async { Arc::new(self.0.clone()) as Arc<dyn Store> })
//!     }
//!
//!     fn advance(&self, duration: Duration) -> FixtureFuture<'_, ()> {
//!         Box::pin(async move { self.0.advance(duration) })
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! conformance::run(async || Memory(MemoryStore::new())).await?;
//! # Ok::<_, conformance::Failed>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

#![allow(
    clippy::field_reassign_with_default,
    reason = "the checks set the fields of filters as a caller does, to whom these structs are not exhaustive"
)]

mod check;
mod commits;
mod fixture;
mod harness;
mod items;
mod owners;
mod questions;
mod races;
mod rollbacks;
mod runs;
mod schedules;
mod takeovers;
mod tasks;
mod threads;
mod values;

use std::{fmt, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;

pub use self::fixture::{Fixture, FixtureFuture};
use self::{check::Check, harness::Harness};
use crate::panics::panic_message;

/// The checks that a store failed. `Debug` shows the same text as `Display`, for `unwrap` in a test.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failed {
    /// The failures, in the order of the checks.
    pub failures: Vec<Failure>,
}

/// A check that a store failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// The name of the check, which says what the store has to do.
    pub check: &'static str,
    /// The reason: what the store did instead.
    pub reason: String,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store fails {} of {} checks:", self.failures.len(), checks().len())?;
        self.failures.iter().try_for_each(|Failure { check, reason }| write!(f, "\n{check}: {reason}"))
    }
}

impl fmt::Debug for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Failed {}

/// Returns the names of all checks, in the order in which they run.
#[must_use]
pub fn checks() -> Vec<&'static str> {
    all().map(|check| check.name).collect()
}

fn all() -> impl Iterator<Item = &'static Check> {
    let modules = [
        owners::CHECKS,
        runs::CHECKS,
        commits::CHECKS,
        questions::CHECKS,
        rollbacks::CHECKS,
        takeovers::CHECKS,
        threads::CHECKS,
        values::CHECKS,
        tasks::CHECKS,
        schedules::CHECKS,
        items::CHECKS,
        races::CHECKS,
    ];
    modules.into_iter().flatten()
}

/// Runs all checks, one after the other, each with a fixture of its own.
///
/// # Errors
///
/// [`Failed`] lists every check that the store fails, also those that panic or take longer than a minute.
pub async fn run<F: Fixture>(fixture: impl AsyncFn() -> F) -> Result<(), Failed> {
    run_selected(fixture, |_| true).await
}

/// Runs the checks whose names are selected, as [`run`] does.
///
/// # Errors
///
/// [`Failed`] lists every selected check that the store fails.
pub async fn run_selected<F: Fixture>(
    fixture: impl AsyncFn() -> F,
    is_selected: impl Fn(&str) -> bool,
) -> Result<(), Failed> {
    let mut failures = Vec::new();
    for Check { name, run } in all().filter(|check| is_selected(check.name)) {
        let fixture = fixture().await;
        let check = async {
            let mut harness = Harness::new(&fixture).await?;
            run(&mut harness).await
        };
        let guarded = AssertUnwindSafe(check).catch_unwind();
        let reason = match tokio::time::timeout(Duration::from_mins(1), guarded).await {
            Ok(Ok(Ok(()))) => continue,
            Ok(Ok(Err(mismatch))) => mismatch.to_string(),
            Ok(Err(panic)) => format!("it panicked: {}", panic_message(panic)),
            Err(_) => "it did not end".to_owned(),
        };
        failures.push(Failure { check: name, reason });
    }
    if failures.is_empty() { Ok(()) } else { Err(Failed { failures }) }
}

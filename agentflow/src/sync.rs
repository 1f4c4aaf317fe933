//! [`Mutex`], a mutex without poison, and [`deadline`].

use std::{
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// A mutex whose lock ignores poison.
///
/// The crate runs no user code while it holds one, and what each one guards is consistent after every statement: a
/// panic on another thread leaves nothing half-written behind.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

#[cfg_attr(agentflow_model, allow(dead_code, reason = "the model checker's mutex takes its place"))]
impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    /// Locks the mutex, and blocks the thread until it is free.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the moment at which `bound` is over; `None` if there is no bound, or if it lies beyond the clock's range,
/// which is no bound either.
#[inline]
pub(crate) fn deadline(bound: Option<Duration>) -> Option<Instant> {
    bound.and_then(|bound| Instant::now().checked_add(bound))
}

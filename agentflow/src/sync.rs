//! [`Mutex`], a mutex without poison, [`guard_waker`] and [`deadline`].

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, MutexGuard, PoisonError},
    task::{Context, Wake, Waker},
    time::Duration,
};

use tokio::time::Instant;

use crate::panics::catch_panic;

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

/// Polls a future with a waker that swallows the panics of the caller's own.
///
/// A waker is user code. tokio wakes the waiters of a `Notify` one after the other on the thread that notifies, so the
/// panic of one would leave the others waiting, and unwind through code that only notifies.
pub(crate) async fn guard_waker<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| {
        let waker = Waker::from(Arc::new(GuardedWaker(Some(cx.waker().clone()))));
        future.as_mut().poll(&mut Context::from_waker(&waker))
    })
    .await
}

/// A waker whose panics are swallowed; always present until it is dropped.
struct GuardedWaker(Option<Waker>);

impl Wake for GuardedWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(waker) = &self.0 {
            catch_panic(|| waker.wake_by_ref());
        }
    }
}

impl Drop for GuardedWaker {
    fn drop(&mut self) {
        let waker = self.0.take();
        catch_panic(|| drop(waker));
    }
}

/// Returns the moment at which `bound` is over; `None` if there is no bound, or if it lies beyond the clock's range,
/// which is no bound either.
#[inline]
pub(crate) fn deadline(bound: Option<Duration>) -> Option<Instant> {
    bound.and_then(|bound| Instant::now().checked_add(bound))
}

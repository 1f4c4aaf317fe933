//! The primitives of [`engine::sync`](super::super::sync) under the model checker, which chooses the next thread
//! whenever one takes a lock, accesses an atomic, notifies, or yields.
//!
//! `Notify` itself, `CancellationToken` and `broadcast` stay tokio's: they call wakers outside of their locks, and the
//! checker does not switch threads while a waker is cloned or dropped, so none of their locks is held at a switch.

use std::{
    any::Any,
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, PoisonError, atomic::Ordering},
    task::{Context, Poll, Waker, ready},
};

use pin_project_lite::pin_project;
use shuttle::{
    future::yield_now,
    rand::{Rng, thread_rng},
};
pub(crate) use shuttle::{
    sync::{
        MutexGuard, Once,
        atomic::{AtomicBool, AtomicU8, AtomicU32},
    },
    thread_local,
};
use tokio::time::Instant;

/// The checker's mutex, with the interface of [`crate::sync::Mutex`].
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Notify {
    inner: tokio::sync::Notify,
    /// Loaded before each step, so that the checker may run another thread first.
    step: AtomicBool,
}

impl Notify {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn step(&self) -> &tokio::sync::Notify {
        self.step.load(Ordering::SeqCst);
        &self.inner
    }

    pub(crate) fn notified(&self) -> Notified<'_> {
        Notified { inner: self.step().notified(), step: &self.step }
    }

    pub(crate) fn notify_one(&self) {
        self.step().notify_one();
    }

    pub(crate) fn notify_waiters(&self) {
        self.step().notify_waiters();
    }
}

pin_project! {
    pub(crate) struct Notified<'a> {
        #[pin]
        inner: tokio::sync::futures::Notified<'a>,
        step: &'a AtomicBool,
    }
}

impl Notified<'_> {
    pub(crate) fn enable(self: Pin<&mut Self>) -> bool {
        self.step.load(Ordering::SeqCst);
        self.project().inner.enable()
    }
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.step.load(Ordering::SeqCst);
        self.project().inner.poll(cx)
    }
}

/// A runtime that exists for as long as the checker runs.
#[derive(Clone, Debug)]
pub(crate) struct Handle;

pub(crate) struct Entered;

#[allow(clippy::unnecessary_wraps, clippy::unused_self, reason = "tokio's signatures")]
impl Handle {
    pub(crate) fn try_current() -> Result<Self, Infallible> {
        Ok(Self)
    }

    pub(crate) fn current() -> Self {
        Self
    }

    pub(crate) fn enter(&self) -> Entered {
        Entered
    }

    pub(crate) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        JoinHandle(shuttle::future::spawn(async { Ok(future.await) }))
    }

    pub(crate) fn spawn_blocking<F, T>(&self, run: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        JoinHandle(shuttle::future::spawn(async { catch_unwind(AssertUnwindSafe(run)).map_err(JoinError::Panic) }))
    }
}

#[derive(Debug)]
pub(crate) struct JoinHandle<T>(shuttle::future::JoinHandle<Result<T, JoinError>>);

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(ready!(Pin::new(&mut self.0).poll(cx)).unwrap_or(Err(JoinError::Cancelled)))
    }
}

#[derive(Debug)]
pub(crate) enum JoinError {
    Cancelled,
    Panic(#[allow(dead_code, reason = "shown by `Debug`")] Box<dyn Any + Send>),
}

pub(crate) fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, timer: None }
}

/// A timer that fires at some time after its first poll, which the checker chooses. The clock is not modelled: of two
/// timers either may fire first.
#[derive(Debug)]
pub(crate) struct Sleep {
    deadline: Instant,
    timer: Option<Arc<Timer>>,
}

#[derive(Debug)]
struct Timer(std::sync::Mutex<State>);

#[derive(Debug)]
enum State {
    Waits(Option<Waker>),
    Over,
}

impl Timer {
    fn set(&self, new: State) -> State {
        std::mem::replace(&mut *self.0.lock().expect("nothing panics under it"), new)
    }

    fn start() -> Arc<Self> {
        let timer = Arc::new(Self(std::sync::Mutex::new(State::Waits(None))));
        let clock = Arc::clone(&timer);
        shuttle::future::spawn(async move {
            for _ in 0..thread_rng().gen_range(0..20) {
                yield_now().await;
            }
            if let State::Waits(Some(waker)) = clock.set(State::Over) {
                waker.wake();
            }
        });
        timer
    }
}

impl Sleep {
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(crate) fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        self.stop();
        self.deadline = deadline;
    }

    /// Stops the timer, so that it wakes no task.
    fn stop(&mut self) {
        if let Some(timer) = self.timer.take() {
            timer.set(State::Waits(None));
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(Timer::start);
        if let State::Over = timer.set(State::Waits(Some(cx.waker().clone()))) {
            timer.set(State::Over);
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

//! The same things as in [`task::sync`](super::super::sync), under the checker: it chooses who goes on whenever somebody
//! takes a lock, touches an atomic, notifies, or yields.
//!
//! `Notify` itself, `CancellationToken` and `broadcast` stay tokio's: they wake outside of their locks, and cloning and
//! dropping a waker is no place where the checker goes elsewhere, so none of their locks is ever held meanwhile.

use std::{
    any::Any,
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker, ready},
};

use pin_project_lite::pin_project;
use shuttle::{
    future::yield_now,
    rand::{Rng, thread_rng},
};
pub(in super::super) use shuttle::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU8, AtomicU32},
    },
    thread_local,
};
use tokio::time::Instant;

#[derive(Debug, Default)]
pub(in super::super) struct Notify {
    inner: tokio::sync::Notify,
    /// Touched before each step, so that others may go first.
    step: AtomicBool,
}

impl Notify {
    pub(in super::super) fn new() -> Self {
        Self::default()
    }

    fn step(&self) -> &tokio::sync::Notify {
        self.step.load(Ordering::SeqCst);
        &self.inner
    }

    pub(in super::super) fn notified(&self) -> Notified<'_> {
        Notified { inner: self.step().notified(), step: &self.step }
    }

    pub(in super::super) fn notify_one(&self) {
        self.step().notify_one();
    }

    pub(in super::super) fn notify_waiters(&self) {
        self.step().notify_waiters();
    }
}

pin_project! {
    pub(in super::super) struct Notified<'a> {
        #[pin]
        inner: tokio::sync::futures::Notified<'a>,
        step: &'a AtomicBool,
    }
}

impl Notified<'_> {
    pub(in super::super) fn enable(self: Pin<&mut Self>) -> bool {
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

/// A runtime is there for as long as the checker runs.
#[derive(Clone, Debug)]
pub(in super::super) struct Handle;

pub(in super::super) struct Entered;

#[allow(clippy::unnecessary_wraps, clippy::unused_self, reason = "tokio's signatures")]
impl Handle {
    pub(in super::super) fn try_current() -> Result<Self, Infallible> {
        Ok(Self)
    }

    pub(in super::super) fn current() -> Self {
        Self
    }

    pub(in super::super) fn enter(&self) -> Entered {
        Entered
    }

    pub(in super::super) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        JoinHandle(shuttle::future::spawn(async { Ok(future.await) }))
    }

    pub(in super::super) fn spawn_blocking<F, T>(&self, run: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        JoinHandle(shuttle::future::spawn(async { catch_unwind(AssertUnwindSafe(run)).map_err(JoinError::Panic) }))
    }
}

#[derive(Debug)]
pub(in super::super) struct JoinHandle<T>(shuttle::future::JoinHandle<Result<T, JoinError>>);

impl<T> JoinHandle<T> {
    pub(in super::super) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(ready!(Pin::new(&mut self.0).poll(cx)).unwrap_or(Err(JoinError::Cancelled)))
    }
}

#[derive(Debug)]
pub(in super::super) enum JoinError {
    Cancelled,
    Panic(Box<dyn Any + Send>),
}

impl JoinError {
    pub(in super::super) fn is_panic(&self) -> bool {
        matches!(self, Self::Panic(_))
    }

    pub(in super::super) fn into_panic(self) -> Box<dyn Any + Send> {
        match self {
            Self::Cancelled => Box::new("cancelled"),
            Self::Panic(payload) => payload,
        }
    }
}

pub(in super::super) fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, timer: None }
}

/// A timer that is over at some time after its first poll: the checker says when. What time it is then is not modelled:
/// of two timers any may be first.
#[derive(Debug)]
pub(in super::super) struct Sleep {
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
    pub(in super::super) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(in super::super) fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        self.stop();
        self.deadline = deadline;
    }

    /// A timer that nobody waits for any more wakes nobody.
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

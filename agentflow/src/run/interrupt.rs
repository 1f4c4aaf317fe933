//! [`StopSignals`]: the signals that stop a run from outside, and [`interruptible`], which polls a future until one of
//! them arrives.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    sync::SetOnce,
    task::unconstrained,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::error::RunErrorKind;
use crate::{error::NodeError, panics::catch_panic};

/// The signals that stop a run from outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StopSignals<'a> {
    /// The run's own token.
    pub(crate) cancel: &'a CancellationToken,
    /// Set by a shutdown of the app that no longer waits for its runs.
    pub(crate) shutdown: &'a SetOnce<()>,
    pub(crate) deadline: Option<RunDeadline>,
}

/// The deadline of a run with a timeout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunDeadline {
    timeout: Duration,
    /// `None` if the timeout is longer than the clock can represent: the deadline never passes.
    at: Option<Instant>,
}

impl RunDeadline {
    /// Creates the deadline of a run that begins now.
    pub(super) fn after(timeout: Duration) -> Self {
        Self { timeout, at: Instant::now().checked_add(timeout) }
    }
}

/// The signal that stopped a run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Interrupt {
    Cancelled,
    ShutDown,
    TimedOut { limit: Duration },
}

impl Interrupt {
    /// Returns the error of a run that was stopped at this node.
    pub(super) fn at(self, node: Arc<str>) -> RunErrorKind {
        match self {
            Self::Cancelled => RunErrorKind::Cancelled { node },
            Self::ShutDown => RunErrorKind::ShutDown { node },
            Self::TimedOut { limit } => RunErrorKind::TimedOut { limit, node },
        }
    }
}

impl StopSignals<'_> {
    /// Returns the signal that stops the run, if there is one.
    #[inline]
    pub(super) fn check(&self) -> Option<Interrupt> {
        if self.cancel.is_cancelled() {
            return Some(Interrupt::Cancelled);
        }
        if self.shutdown.initialized() {
            return Some(Interrupt::ShutDown);
        }
        let RunDeadline { timeout, at } = self.deadline?;
        (at? <= Instant::now()).then_some(Interrupt::TimedOut { limit: timeout })
    }

    /// Waits for the first signal.
    async fn wait(self) -> Interrupt {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Interrupt::Cancelled,
            () = self.shutdown.wait() => Interrupt::ShutDown,
            limit = passed(self.deadline) => Interrupt::TimedOut { limit },
        }
    }
}

/// Waits until the deadline has passed. Returns the timeout.
async fn passed(deadline: Option<RunDeadline>) -> Duration {
    match deadline {
        Some(RunDeadline { timeout, at: Some(at) }) => {
            sleep_until(at).await;
            timeout
        }
        _ => std::future::pending().await,
    }
}

/// The end of a future that can be interrupted.
pub(super) enum Ended<T> {
    Completed(T),
    Interrupted(Interrupt),
    /// The future panicked. A node's panic is caught earlier; this one came from code of the state, such as its `Clone`.
    Panicked(NodeError),
}

/// Polls `future` until it ends or is interrupted, and drops it.
///
/// The signals are polled only after the future has returned `Pending`, so that a run whose nodes never wait registers
/// no waker and no timer.
pub(super) async fn interruptible<F: Future + Send>(
    mut future: Pin<&mut Option<F>>,
    signals: StopSignals<'_>,
) -> Ended<F::Output> {
    let mut waiting = None;
    let ended = poll_fn(|cx: &mut Context<'_>| {
        let Some(future) = future.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        // `AssertUnwindSafe` holds because a future that panicked is not polled again. The timer is polled inside,
        // because it panics on a runtime without timers.
        let polled = catch_unwind(AssertUnwindSafe(|| {
            if let Poll::Ready(output) = future.poll(cx) {
                return Poll::Ready(Ended::Completed(output));
            }
            // The signals are polled unconstrained, because a node that always has work leaves them no budget.
            let waiting = waiting.get_or_insert_with(|| Box::pin(unconstrained(signals.wait())));
            waiting.as_mut().poll(cx).map(Ended::Interrupted)
        }));
        polled.unwrap_or_else(|panic| Poll::Ready(Ended::Panicked(NodeError::panicked(panic))))
    })
    .await;
    // A panic in a destructor of the node must not replace the end of the run.
    catch_panic(|| future.set(None));
    ended
}

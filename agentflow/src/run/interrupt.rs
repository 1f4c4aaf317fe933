//! [`Interruptible`]: a run that can be ended from outside while a node waits.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{task::unconstrained, time::sleep_until};

use super::scope::{Interrupt, Signals, Timeout};
use crate::{NodeError, error::quietly};

/// How a walk through the graph ended.
pub(super) enum Ended<T> {
    Itself(T),
    Interrupted(Interrupt),
    /// A node's panic is its own error; this one came from the state's code, such as its `Clone`.
    Panicked(NodeError),
}

/// Polls `walk` until it ends or is interrupted, and drops it.
///
/// Nobody is asked before a node has had to wait: a run whose nodes are ready at once registers no waker and no timer.
pub(super) async fn interruptible<F: Future + Send>(
    mut walk: Pin<&mut Option<F>>,
    signals: Signals<'_>,
) -> Ended<F::Output> {
    let mut waiting = None;
    let ended = poll_fn(|cx: &mut Context<'_>| {
        let Some(walk) = walk.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        // What panicked is not polled again, so nobody sees what is half done in it. A timer panics too, on a runtime that
        // has none.
        let polled = catch_unwind(AssertUnwindSafe(|| {
            if let Poll::Ready(output) = walk.poll(cx) {
                return Poll::Ready(Ended::Itself(output));
            }
            // Unconstrained, or a node that is never out of work leaves no budget to look at the signals.
            let waiting = waiting.get_or_insert_with(|| Box::pin(unconstrained(interrupted(signals))));
            waiting.as_mut().poll(cx).map(Ended::Interrupted)
        }));
        polled.unwrap_or_else(|panic| Poll::Ready(Ended::Panicked(NodeError::panicked(panic))))
    })
    .await;
    // A destructor of a node's that panics must not take the run's own end away.
    quietly(|| walk.set(None));
    ended
}

async fn interrupted(signals: Signals<'_>) -> Interrupt {
    tokio::select! {
        biased;
        () = signals.cancel.cancelled() => Interrupt::Cancelled,
        () = signals.unfinished.wait() => Interrupt::ShutDown,
        limit = passed(signals.timeout) => Interrupt::TimedOut { limit },
    }
}

async fn passed(timeout: Option<Timeout>) -> Duration {
    match timeout {
        Some(Timeout { limit, deadline: Some(deadline) }) => {
            sleep_until(deadline).await;
            limit
        }
        _ => std::future::pending().await,
    }
}

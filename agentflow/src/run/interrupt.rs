//! [`Interruptible`]: a run that can be ended from outside while a node waits.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::sleep_until;

use super::scope::{Interrupt, Signals, Timeout};
use crate::{NodeError, error::discard};

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
pub(super) async fn interruptible<T>(
    walk: Pin<&mut Option<impl Future<Output = T> + Send>>,
    signals: Signals<'_>,
) -> Ended<T> {
    let mut walk = walk;
    let mut waiting: Option<Pin<Box<dyn Future<Output = Interrupt> + Send + '_>>> = None;
    let ended = poll_fn(|cx: &mut Context<'_>| {
        let poll = || match walk.as_mut().as_pin_mut() {
            Some(walk) => walk.poll(cx),
            None => Poll::Pending,
        };
        // What panicked is not polled again, so nobody sees what is half done in it.
        match catch_unwind(AssertUnwindSafe(poll)) {
            Ok(Poll::Ready(output)) => Poll::Ready(Ended::Itself(output)),
            Ok(Poll::Pending) => {
                let waiting = waiting.get_or_insert_with(|| Box::pin(interrupted(signals)));
                waiting.as_mut().poll(cx).map(Ended::Interrupted)
            }
            Err(panic) => Poll::Ready(Ended::Panicked(NodeError::panicked(panic))),
        }
    })
    .await;
    // A destructor of a node's that panics must not take the run's own end away.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| walk.set(None))) {
        discard(panic);
    }
    ended
}

async fn interrupted(signals: Signals<'_>) -> Interrupt {
    tokio::select! {
        biased;
        () = signals.cancel.cancelled() => Interrupt::Cancelled,
        () = signals.cut_off.cancelled() => Interrupt::ShutDown,
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

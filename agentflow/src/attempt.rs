//! [`guarded`]: one attempt of a node or of a task, with its timeout and its panic.

use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{task::unconstrained, time::sleep_until};

use crate::sync::deadline;

/// The reason why an attempt has no output.
#[derive(Debug)]
pub(crate) enum AttemptFault {
    /// The attempt panicked with this payload.
    Panicked(Box<dyn Any + Send>),
    /// The timeout expired.
    TimedOut {
        /// The timeout.
        after: Duration,
    },
}

/// Polls an attempt until it ends or its timeout expires; a panic and an expired timeout are faults.
///
/// A timeout of zero expires before the first poll. The caller drops the attempt afterwards, and decides what a panic of
/// its destructor means.
///
/// The timeout leaves out the time that `excluded` returns. While such a time lasts, `excluded` is pending and wakes the
/// caller at its end.
///
/// `fault` converts a fault into the attempt's own error, so that the result is not wrapped in another one: it is copied
/// through the caller's futures on every step.
pub(crate) async fn guarded<T, E>(
    mut attempt: Pin<&mut impl Future<Output = Result<T, E>>>,
    timeout: Option<Duration>,
    excluded: impl Fn(&mut Context<'_>) -> Poll<Duration>,
    fault: impl Fn(AttemptFault) -> E,
) -> Result<T, E> {
    if timeout == Some(Duration::ZERO) {
        return Err(fault(AttemptFault::TimedOut { after: Duration::ZERO }));
    }
    let deadline = deadline(timeout);
    let mut timer = None;
    let mut timer_excludes = Duration::ZERO;
    poll_fn(|cx| {
        // The assertion holds because an attempt that panicked is never polled again.
        match catch_unwind(AssertUnwindSafe(|| attempt.as_mut().poll(cx))) {
            Ok(Poll::Ready(result)) => return Poll::Ready(result),
            Err(panic) => return Poll::Ready(Err(fault(AttemptFault::Panicked(panic)))),
            Ok(Poll::Pending) => {}
        }
        let (Some(after), Some(deadline)) = (timeout, deadline) else {
            return Poll::Pending;
        };
        let Poll::Ready(excluded) = excluded(cx) else {
            return Poll::Pending;
        };
        if excluded != timer_excludes {
            timer_excludes = excluded;
            timer = None;
        }
        let Some(deadline) = deadline.checked_add(excluded) else {
            return Poll::Pending;
        };
        // The timer is polled unconstrained, because an attempt that always has work to do leaves it no budget.
        let timer = timer.get_or_insert_with(|| Box::pin(unconstrained(sleep_until(deadline))));
        timer.as_mut().poll(cx).map(|()| Err(fault(AttemptFault::TimedOut { after })))
    })
    .await
}

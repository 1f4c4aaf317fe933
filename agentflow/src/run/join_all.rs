//! [`join_all`] and [`first_success`]: poll futures in parallel until all, or the first, have succeeded.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::{
    future::BoxFuture,
    stream::{FuturesUnordered, StreamExt},
};

use crate::panics::catch_panic;

/// The number of futures up to which all of them are polled when one is woken: that costs less than finding out which
/// one it was.
const POLL_ALL_MAX: usize = 32;

/// Polls the futures until all have succeeded or one has failed, and drops the others.
pub(super) async fn join_all<E>(futures: Vec<BoxFuture<'_, Result<(), E>>>) -> Result<(), E> {
    let are_few = futures.len() <= POLL_ALL_MAX;
    let futures = futures.into_iter().map(|future| CatchDrop(Some(future)));
    if are_few { poll_all(futures.collect()).await } else { poll_woken(futures.collect()).await }
}

async fn poll_all<E>(mut futures: Vec<CatchDrop<'_, Result<(), E>>>) -> Result<(), E> {
    let mut first = 0;
    poll_fn(|cx| {
        let mut joined = Poll::Ready(Ok(()));
        let (last, next) = futures.split_at_mut(first);
        for running in next.iter_mut().chain(last).filter(|future| future.0.is_some()) {
            match Pin::new(&mut *running).poll(cx) {
                Poll::Ready(Ok(())) => running.0 = None,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => joined = Poll::Pending,
            }
        }
        // Each poll begins with another future, because one that always has work to do leaves nothing of tokio's budget to
        // the futures after it.
        first = if first + 1 < futures.len() { first + 1 } else { 0 };
        joined
    })
    .await
}

/// Polls the futures until one has succeeded, and returns its index; drops the others. If all fail, returns what `recover`
/// made of their errors, in the order of the futures. An error from which `recover` cannot recover is returned at once.
pub(super) async fn first_success<E, F>(
    futures: Vec<BoxFuture<'_, Result<(), E>>>,
    recover: impl Fn(E) -> Result<F, E>,
) -> Result<Result<usize, Vec<F>>, E> {
    let mut futures: Vec<_> = futures.into_iter().map(|future| CatchDrop(Some(future))).collect();
    let mut failures: Vec<Option<F>> = futures.iter().map(|_| None).collect();
    let mut first = 0;
    poll_fn(|cx| {
        let count = futures.len();
        let mut is_pending = false;
        for index in (first..count).chain(0..first) {
            let running = &mut futures[index];
            if running.0.is_none() {
                continue;
            }
            match Pin::new(&mut *running).poll(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(Ok(index))),
                Poll::Ready(Err(error)) => match recover(error) {
                    Ok(failure) => {
                        running.0 = None;
                        failures[index] = Some(failure);
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                },
                Poll::Pending => is_pending = true,
            }
        }
        // As in `poll_all`, each poll begins with another future.
        first = if first + 1 < count { first + 1 } else { 0 };
        if is_pending { Poll::Pending } else { Poll::Ready(Ok(Err(std::mem::take(&mut failures)))) }
    })
    .await
    .map(|ended| ended.map_err(|failures| failures.into_iter().flatten().collect()))
}

async fn poll_woken<E>(mut futures: FuturesUnordered<CatchDrop<'_, Result<(), E>>>) -> Result<(), E> {
    while let Some(ended) = futures.next().await {
        ended?;
    }
    Ok(())
}

/// A future whose destructor does not panic. A panic would replace the failure for which the future is dropped, and
/// would abort the process if the destructor of a second one panicked as well.
pub(super) struct CatchDrop<'a, T>(Option<BoxFuture<'a, T>>);

impl<'a, T> CatchDrop<'a, T> {
    pub(super) fn new(future: BoxFuture<'a, T>) -> Self {
        Self(Some(future))
    }
}

impl<T> Future for CatchDrop<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        self.0.as_mut().map_or(Poll::Pending, |future| future.as_mut().poll(cx))
    }
}

impl<T> Drop for CatchDrop<'_, T> {
    fn drop(&mut self) {
        if let Some(future) = self.0.take() {
            catch_panic(|| drop(future));
        }
    }
}

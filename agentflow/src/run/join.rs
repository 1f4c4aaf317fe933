//! [`join`]: futures side by side, until all have ended or one has failed.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::{error::quietly, graph::BoxFuture};

/// Up to so many, all that run are polled when one of them is woken: that costs less than to find out which one it was.
const FEW: usize = 32;

/// Polls the futures until all have ended or one has failed. Those that still run then are dropped.
pub(super) async fn join<E>(futures: Vec<BoxFuture<'_, Result<(), E>>>) -> Result<(), E> {
    let are_few = futures.len() <= FEW;
    let futures = futures.into_iter().map(|future| Quiet(Some(future)));
    if are_few { few(futures.collect()).await } else { many(futures.collect()).await }
}

async fn few<E>(mut futures: Vec<Quiet<'_, Result<(), E>>>) -> Result<(), E> {
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
        // Another one is the first the next time: one that is never out of work leaves nothing of tokio's budget to those
        // behind it.
        first = if first + 1 < futures.len() { first + 1 } else { 0 };
        joined
    })
    .await
}

async fn many<E>(mut futures: FuturesUnordered<Quiet<'_, Result<(), E>>>) -> Result<(), E> {
    while let Some(ended) = futures.next().await {
        ended?;
    }
    Ok(())
}

/// A future, until it has ended, whose destructor does not panic: that would take away the failure for which it is
/// dropped, and end the process where the destructor of a second one panics too.
struct Quiet<'a, T>(Option<BoxFuture<'a, T>>);

impl<T> Future for Quiet<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        self.0.as_mut().map_or(Poll::Pending, |future| future.as_mut().poll(cx))
    }
}

impl<T> Drop for Quiet<'_, T> {
    fn drop(&mut self) {
        if let Some(future) = self.0.take() {
            quietly(|| drop(future));
        }
    }
}

//! [`join_all`] and [`first_success`]: poll futures in parallel until all, or the first, have succeeded. [`Waiting`]: the
//! futures of a group that wait.

use std::{
    future::{Future, poll_fn},
    ops::ControlFlow,
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

/// Futures that wait. Each has been polled once with the waker of the task.
///
/// All of them are polled when the task is woken, as long as that finds enough of them ready. Many futures that are woken
/// one by one would be polled too often; from then on only those that were woken are polled.
pub(super) struct Waiting<F> {
    /// The futures that are all polled; one that has ended is `None` until the end of the poll.
    all: Vec<Option<F>>,
    /// The futures of which only those that were woken are polled, once there were too many others.
    woken: Option<FuturesUnordered<F>>,
    /// The future that the next poll begins with.
    first: usize,
    /// The number of futures that were polled and were not ready.
    in_vain: usize,
}

impl<F: Future + Unpin> Waiting<F> {
    /// The number of futures for which there is room at first, at most.
    const RESERVED: usize = 256;
    /// The number of times that each of many futures may be polled in vain.
    const PATIENCE: usize = 4;

    #[inline]
    pub(super) fn new() -> Self {
        Self { all: Vec::new(), woken: None, first: 0, in_vain: 0 }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.all.len() + self.woken.as_ref().map_or(0, FuturesUnordered::len)
    }

    /// Adds a future that was polled and waits. There will be about `more` others.
    #[inline]
    pub(super) fn push(&mut self, future: F, more: usize) {
        if let Some(woken) = &self.woken {
            return woken.push(future);
        }
        if self.all.is_empty() {
            self.all.reserve(more.saturating_add(1).min(Self::RESERVED));
        }
        self.all.push(Some(future));
    }

    /// Polls the futures, and passes on the outputs of those that have ended, until `ended` breaks.
    pub(super) fn poll<B>(
        &mut self,
        cx: &mut Context<'_>,
        mut ended: impl FnMut(F::Output) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if let Some(woken) = &mut self.woken {
            while let Poll::Ready(Some(output)) = woken.poll_next_unpin(cx) {
                ended(output)?;
            }
            return ControlFlow::Continue(());
        }
        let before = self.all.len();
        let mut in_vain = 0;
        let (last, next) = self.all.split_at_mut(self.first.min(before));
        for waiting in next.iter_mut().chain(last) {
            let Some(future) = waiting else { continue };
            match Pin::new(future).poll(cx) {
                Poll::Ready(output) => {
                    *waiting = None;
                    ended(output)?;
                }
                Poll::Pending => in_vain += 1,
            }
        }
        if in_vain < before {
            self.all.retain(Option::is_some);
        }
        // As in `poll_all`, each poll begins with another future.
        self.first = if self.first + 1 < in_vain { self.first + 1 } else { 0 };
        self.in_vain += in_vain;
        if in_vain > POLL_ALL_MAX && self.in_vain > Self::PATIENCE * in_vain {
            self.woken = Some(self.all.drain(..).flatten().collect());
        }
        ControlFlow::Continue(())
    }
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

#[cfg(test)]
mod tests {
    use std::{cell::Cell, convert::Infallible, future::poll_fn};

    use tokio::sync::Notify;

    use super::*;

    /// Wakes futures one after the other. Returns the number of polls that it took to end them all.
    async fn polls_of(count: usize) -> usize {
        let notified: Vec<_> = (0..count).map(|_| Notify::new()).collect();
        let polls = Cell::new(0);
        let futures = notified.iter().map(|notify| {
            let mut notified = Box::pin(notify.notified());
            let polls = &polls;
            Box::pin(poll_fn(move |cx| {
                polls.set(polls.get() + 1);
                notified.as_mut().poll(cx)
            }))
        });
        let mut waiting = Waiting::new();
        let mut futures: Vec<_> = futures.collect();
        poll_fn(|cx| {
            for mut future in futures.drain(..) {
                assert!(future.as_mut().poll(cx).is_pending());
                waiting.push(future, count);
            }
            Poll::Ready(())
        })
        .await;
        for notify in &notified {
            notify.notify_one();
            let mut ended = 0;
            poll_fn(|cx| {
                let _: ControlFlow<Infallible> = waiting.poll(cx, |()| {
                    ended += 1;
                    ControlFlow::Continue(())
                });
                if ended > 0 { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            assert_eq!(ended, 1);
        }
        assert_eq!(waiting.len(), 0);
        polls.get()
    }

    #[tokio::test]
    async fn many_futures_that_are_woken_one_by_one_are_not_all_polled_each_time() {
        assert!(polls_of(1_000).await < 10_000);
    }

    #[tokio::test]
    async fn few_futures_are_all_polled_each_time() {
        let count = POLL_ALL_MAX;
        assert_eq!(polls_of(count).await, count + count * (count + 1) / 2);
    }
}

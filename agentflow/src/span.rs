//! [`GuardedSpan`]: a span of `tracing` whose subscriber may panic.
//!
//! A subscriber is user code: a panic of its own is swallowed, because a span must not change what it describes.
//! `tracing::Instrument` has no such guard. If the subscriber panics in `enter` while an instrumented future is dropped,
//! the future is never dropped, but its memory is freed: a waiter of tokio in it is left in its list.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tracing::{Span, span::Entered};

use crate::error::catch_panic;

/// A span; does nothing if no subscriber enables it.
#[derive(Debug, Default)]
pub(crate) struct GuardedSpan(
    // In a box, because most programs enable no span.
    Option<Box<Span>>,
);

impl GuardedSpan {
    /// Creates the span, or none if the subscriber panics.
    pub(crate) fn new(create: impl FnOnce() -> Span) -> Self {
        let mut created = Self::default();
        catch_panic(|| {
            let span = create();
            created.0 = (!span.is_disabled()).then(|| Box::new(span));
        });
        created
    }

    /// Records that the span follows from that of this thread.
    pub(crate) fn follows_from_current(&self) {
        if let Some(span) = &self.0 {
            catch_panic(|| {
                span.follows_from(Span::current());
            });
        }
    }

    /// Enters the span until the guard is dropped.
    pub(crate) fn enter(&self) -> EnteredSpan<'_> {
        let mut entered = None;
        if let Some(span) = &self.0 {
            catch_panic(|| entered = Some(span.enter()));
        }
        EnteredSpan(entered)
    }

    /// Makes a future that is polled and dropped in the span.
    pub(crate) fn instrument<F>(self, future: F) -> Instrumented<F> {
        Instrumented { future: Some(future), span: self }
    }
}

impl Drop for GuardedSpan {
    fn drop(&mut self) {
        if let Some(span) = self.0.take() {
            catch_panic(|| drop(span));
        }
    }
}

/// Leaves the span when it is dropped.
#[derive(Debug)]
pub(crate) struct EnteredSpan<'a>(Option<Entered<'a>>);

impl Drop for EnteredSpan<'_> {
    fn drop(&mut self) {
        if let Some(entered) = self.0.take() {
            catch_panic(|| drop(entered));
        }
    }
}

pin_project! {
    /// A future that is polled and dropped in a span.
    #[derive(Debug)]
    pub(crate) struct Instrumented<F> {
        // `None` only while it is dropped.
        #[pin]
        future: Option<F>,
        span: GuardedSpan,
    }

    impl<F> PinnedDrop for Instrumented<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let _entered = this.span.enter();
            this.future.set(None);
        }
    }
}

impl<F: Future> Future for Instrumented<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _entered = this.span.enter();
        this.future.as_pin_mut().map_or(Poll::Pending, |future| future.poll(cx))
    }
}

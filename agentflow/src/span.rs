//! [`GuardedSpan`]: a span of `tracing` whose subscriber may panic.
//!
//! A subscriber is user code: a panic of its own is swallowed, because a span must not change what it describes.
//! `tracing::Instrument` has no such guard. If the subscriber panics in `enter` while an instrumented future is dropped,
//! the future is never dropped, but its memory is freed: a waiter of tokio in it is left in its list.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tracing::{Span, level_filters::LevelFilter, span::Entered};

use crate::panics::catch_panic;

/// A span, which does nothing if no subscriber enables it.
#[derive(Clone, Debug, Default)]
pub(crate) struct GuardedSpan(
    // The span is shared, so that a clone calls no subscriber.
    Option<Arc<Span>>,
);

// The path without a subscriber is inlined into the futures of runs, which other crates instantiate.
impl GuardedSpan {
    /// Creates the span, or none if the subscriber panics.
    #[inline]
    pub(crate) fn new(create: impl FnOnce() -> Span) -> Self {
        if LevelFilter::current() == LevelFilter::OFF { Self::default() } else { Self::create(create) }
    }

    #[cold]
    fn create(create: impl FnOnce() -> Span) -> Self {
        let mut created = Self::default();
        catch_panic(|| {
            let span = create();
            created.0 = (!span.is_disabled()).then(|| Arc::new(span));
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
    #[inline]
    pub(crate) fn enter(&self) -> EnteredSpan<'_> {
        EnteredSpan(self.0.as_deref().and_then(entered))
    }

    /// Calls the function in the span.
    pub(crate) fn in_scope<T>(&self, call: impl FnOnce() -> T) -> T {
        let _entered = self.enter();
        call()
    }

    /// Makes a future that is polled and dropped in the span.
    #[inline]
    pub(crate) fn instrument<F>(self, future: F) -> Instrumented<F> {
        Instrumented { future: Some(future), span: self }
    }
}

impl Drop for GuardedSpan {
    #[inline]
    fn drop(&mut self) {
        if let Some(span) = self.0.take() {
            dropped(span);
        }
    }
}

/// Leaves the span when it is dropped.
#[derive(Debug)]
pub(crate) struct EnteredSpan<'a>(Option<Entered<'a>>);

impl Drop for EnteredSpan<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(entered) = self.0.take() {
            dropped(entered);
        }
    }
}

#[cold]
fn entered(span: &Span) -> Option<Entered<'_>> {
    let mut entered = None;
    catch_panic(|| entered = Some(span.enter()));
    entered
}

#[cold]
fn dropped<T>(value: T) {
    catch_panic(|| drop(value));
}

pin_project! {
    /// A future that is polled and dropped in a span.
    #[derive(Debug)]
    pub(crate) struct Instrumented<F> {
        // The future is `None` only while it is dropped.
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

//! [`Fixture`]: a data set of the store that is checked.

use std::{pin::Pin, sync::Arc, time::Duration};

use super::super::Store;

/// The future of a [`Fixture`].
pub type FixtureFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One data set, which is empty at first. It may panic if it cannot do what it is asked to.
pub trait Fixture: Send + Sync {
    /// Opens one more handle on the data, as another process would. A [`Store::open`] is part of it.
    fn open(&self) -> FixtureFuture<'_, Arc<dyn Store>>;

    /// Ends a handle as the death of its process would: its owner does not leave, and nothing is released.
    ///
    /// Provided: drops the handle, which is enough for a store that cleans nothing up when it is dropped.
    fn kill(&self, handle: Arc<dyn Store>) -> FixtureFuture<'_, ()> {
        drop(handle);
        Box::pin(async {})
    }

    /// Moves the clock of the store forward, for all handles.
    fn advance(&self, duration: Duration) -> FixtureFuture<'_, ()>;
}

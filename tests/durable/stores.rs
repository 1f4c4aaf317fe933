//! The stores that the tests run on.

use std::{sync::Arc, time::Duration};

use agentflow::store::{MemoryStore, Store};

/// A store that the tests run on. Each value begins without data.
pub(crate) trait StoreUnderTest {
    /// Opens the store, as another process does.
    fn open(&self) -> Arc<dyn Store>;

    /// Ends the process that has opened the handle. Its owner has no chance to leave the store.
    fn kill(&self, handle: Arc<dyn Store>);

    /// Moves the store's clock forward.
    fn advance(&self, duration: Duration);
}

/// The store in memory. Its data outlives its handles.
#[derive(Default)]
pub(crate) struct Memory(MemoryStore);

impl StoreUnderTest for Memory {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.0.clone())
    }

    fn kill(&self, handle: Arc<dyn Store>) {
        drop(handle);
    }

    fn advance(&self, duration: Duration) {
        self.0.advance(duration);
    }
}

/// Makes a test on each store from a function that takes a [`StoreUnderTest`].
macro_rules! on_every_store {
    ($($test:ident),* $(,)?) => {
        mod on_memory {
            $(
                #[test]
                fn $test() {
                    super::$test(&crate::durable::stores::Memory::default());
                }
            )*
        }
    };
}

pub(super) use on_every_store;

//! [`IntoStore`]: a store as `compile { store: .. }` takes it.

use std::sync::Arc;

use super::Store;

/// A [`Store`], alone or in an [`Arc`]. Apps in one process share a store by clones of the `Arc`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no store",
    label = "not a store",
    note = "a store is a value that implements `agentflow::store::Store`, alone or in an `Arc`"
)]
pub trait IntoStore {
    /// Returns the store.
    fn into_store(self) -> Arc<dyn Store>;
}

#[diagnostic::do_not_recommend]
impl<T: Store> IntoStore for T {
    fn into_store(self) -> Arc<dyn Store> {
        Arc::new(self)
    }
}

#[diagnostic::do_not_recommend]
impl<T: Store> IntoStore for Arc<T> {
    fn into_store(self) -> Arc<dyn Store> {
        self
    }
}

#[diagnostic::do_not_recommend]
impl IntoStore for Arc<dyn Store> {
    fn into_store(self) -> Arc<dyn Store> {
        self
    }
}

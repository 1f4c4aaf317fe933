//! The runtimes that contests run on.

use tokio::runtime::{Builder, Runtime};

/// Creates a runtime that runs everything on the calling thread.
pub(crate) fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime can be made")
}

/// Creates a runtime with this many worker threads beside the calling one.
pub(crate) fn workers(count: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(count).enable_all().build().expect("a runtime can be made")
}

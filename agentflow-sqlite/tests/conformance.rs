//! The store in SQLite passes the suite of stores.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use agentflow::store::{
    Store,
    conformance::{self, Fixture, FixtureFuture},
};
use agentflow_sqlite::SqliteStore;
use tempfile::TempDir;

/// A file, with the handles that were opened on it.
struct File {
    folder: TempDir,
    handles: Mutex<Handles>,
}

#[derive(Default)]
struct Handles {
    open: Vec<(Arc<dyn Store>, SqliteStore)>,
    /// The time by which the clock has been moved.
    advanced: Duration,
}

impl File {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), handles: Mutex::default() }
    }
}

impl Fixture for File {
    fn open(&self) -> FixtureFuture<'_, Arc<dyn Store>> {
        Box::pin(async {
            let store = SqliteStore::open(self.folder.path().join("app.db")).unwrap();
            let mut handles = self.handles.lock().unwrap();
            store.advance_clock(handles.advanced);
            let handle: Arc<dyn Store> = Arc::new(store.clone());
            handles.open.push((Arc::clone(&handle), store));
            handle
        })
    }

    fn kill(&self, handle: Arc<dyn Store>) -> FixtureFuture<'_, ()> {
        let mut handles = self.handles.lock().unwrap();
        let at = handles.open.iter().position(|(open, _)| Arc::ptr_eq(open, &handle)).unwrap();
        let (_, store) = handles.open.swap_remove(at);
        // The operating system releases the locks of a process that dies.
        store.release_owner_locks();
        Box::pin(async {})
    }

    fn advance(&self, duration: Duration) -> FixtureFuture<'_, ()> {
        let mut handles = self.handles.lock().unwrap();
        handles.advanced += duration;
        handles.open.iter().for_each(|(_, store)| store.advance_clock(duration));
        Box::pin(async {})
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_passes_the_suite() {
    conformance::run(async || File::new()).await.unwrap();
}

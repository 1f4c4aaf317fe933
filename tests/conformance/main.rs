//! The conformance suite: the store in memory passes, and stores with planted faults do not.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test's name documents it, and a test fails by panicking")]

mod faults;
mod faulty;

use std::{sync::Arc, time::Duration};

use agentflow::store::{
    MemoryStore, Store,
    conformance::{self, Fixture, FixtureFuture},
};

struct Memory(MemoryStore);

impl Fixture for Memory {
    fn open(&self) -> FixtureFuture<'_, Arc<dyn Store>> {
        Box::pin(async { Arc::new(self.0.clone()) as Arc<dyn Store> })
    }

    fn advance(&self, duration: Duration) -> FixtureFuture<'_, ()> {
        Box::pin(async move { self.0.advance(duration) })
    }
}

#[tokio::test(start_paused = true)]
async fn the_store_in_memory_passes() {
    conformance::run(async || Memory(MemoryStore::new())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_in_memory_passes_on_several_threads() {
    conformance::run(async || Memory(MemoryStore::new())).await.unwrap();
}

#[test]
fn the_names_of_the_checks_differ() {
    let mut names = conformance::checks();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

//! A process that opens a store, and may die.

use std::{sync::Arc, time::Duration};

use agentflow::{
    CompiledGraph, State,
    store::{RunFilter, RunRow, RunStatus},
    thread::{RecoveryReport, Thread},
};
use tokio::runtime::{Builder, Runtime};

use super::{
    faulty_store::{Faults, FaultyStore},
    stores::StoreUnderTest,
};

/// The time after which an owner that has died counts as dead.
const LEASE: Duration = Duration::from_mins(1);

/// The time after which a test that waits has failed.
const BOUND: Duration = Duration::from_mins(1);

/// A process: a runtime, and a handle on the store. It dies when it is dropped.
pub(crate) struct Process<'s> {
    stores: &'s dyn StoreUnderTest,
    store: Arc<FaultyStore>,
    runtime: Option<Runtime>,
    is_paused: bool,
}

impl<'s> Process<'s> {
    pub(crate) fn start(stores: &'s dyn StoreUnderTest) -> Self {
        Self::on(stores, Builder::new_current_thread().enable_all().build().unwrap(), false)
    }

    /// Starts a process whose clock is paused: its timers fire as soon as nothing else is left to do.
    pub(crate) fn start_paused(stores: &'s dyn StoreUnderTest) -> Self {
        Self::on(stores, Builder::new_current_thread().enable_all().start_paused(true).build().unwrap(), true)
    }

    fn on(stores: &'s dyn StoreUnderTest, runtime: Runtime, is_paused: bool) -> Self {
        Self { stores, store: FaultyStore::new(stores.open()), runtime: Some(runtime), is_paused }
    }

    pub(crate) fn with(self, faults: Faults) -> Self {
        self.store.plan(faults);
        self
    }

    pub(crate) fn store(&self) -> Arc<FaultyStore> {
        Arc::clone(&self.store)
    }

    /// Runs the future. The process must not die before its end.
    #[track_caller]
    pub(crate) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.run_until_death(future).expect("the process has died")
    }

    /// Runs the future until its end, or until the store dies.
    #[track_caller]
    pub(crate) fn run_until_death<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let run = async {
            tokio::select! {
                biased;
                () = self.store.death() => None,
                ended = future => Some(ended),
            }
        };
        let runtime = self.runtime.as_ref().unwrap();
        if self.is_paused {
            return runtime.block_on(run);
        }
        runtime.block_on(async { tokio::time::timeout(BOUND, run).await.expect("the test waits for ever") })
    }

    /// Dies now, and lets the lease run out.
    pub(crate) fn die(self) {
        drop(self);
    }
}

impl Drop for Process<'_> {
    fn drop(&mut self) {
        self.store.die();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        self.stores.kill(self.store.inner());
        self.stores.advance(LEASE);
    }
}

/// Takes over what earlier processes have left, and waits until all of it has ended.
pub(crate) async fn recover<S, C>(app: &CompiledGraph<S, C>) -> RecoveryReport
where
    S: State + Default,
    C: Send + Sync + 'static,
{
    let report = app.recover().await.unwrap();
    idle(app).await;
    report
}

/// Waits until the app drives no run. It sleeps between its looks, so that a paused clock goes on.
pub(crate) async fn idle<S, C>(app: &CompiledGraph<S, C>)
where
    S: State + Default,
    C: Send + Sync + 'static,
{
    while !app.runs().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Returns the runs of a thread, the oldest first.
pub(crate) async fn runs<S, C>(thread: &Thread<S, C>) -> Vec<RunRow>
where
    S: State + Default,
    C: Send + Sync + 'static,
{
    let mut runs = thread.runs(RunFilter::default()).await.unwrap();
    runs.reverse();
    runs
}

/// Returns the states of the runs of a thread, the oldest first.
pub(crate) async fn statuses<S, C>(thread: &Thread<S, C>) -> Vec<RunStatus>
where
    S: State + Default,
    C: Send + Sync + 'static,
{
    runs(thread).await.iter().map(|run| run.status).collect()
}

//! [`StoreSink`]: stores the durable tasks that are spawned outside of a node's attempt.

use std::{
    fmt,
    future::ready,
    panic::AssertUnwindSafe,
    sync::{Arc, Weak},
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{runtime::Handle, sync::oneshot};

use super::worker::start_worker;
use crate::{
    graph::app::App,
    panics::{catch_panic, panic_message},
    session::patiently,
    state::State,
    store::{Enqueued, NewTask, StoreError, StoreErrorKind, StoredTaskId},
    task::{Batch, DurableSink, SpawnError},
};

/// Stores the durable tasks of an app, in the order in which they were spawned, in the background.
pub(crate) struct StoreSink<S: State, C> {
    app: Weak<App<S, C>>,
}

impl<S: State, C: Send + Sync + 'static> StoreSink<S, C> {
    pub(crate) fn new(app: &Arc<App<S, C>>) -> Self {
        Self { app: Arc::downgrade(app) }
    }

    fn submit(
        &self,
        tasks: Vec<NewTask>,
    ) -> Result<oneshot::Receiver<Result<Vec<StoredTaskId>, SpawnError>>, SpawnError> {
        let app = self.app.upgrade().ok_or(SpawnError::Closed)?;
        let runtime = Handle::try_current().ok().or_else(|| app.manager.runtime()).ok_or(SpawnError::NoRuntime)?;
        let (stored, receiver) = oneshot::channel();
        if app.worker.push(Batch { tasks, stored }) {
            runtime.spawn(write(app));
        }
        Ok(receiver)
    }
}

impl<S: State, C: Send + Sync + 'static> DurableSink for StoreSink<S, C> {
    fn check(&self, name: &'static str) -> Result<(), SpawnError> {
        let app = self.app.upgrade().ok_or(SpawnError::Closed)?;
        app.tasks.check(name)?;
        start_worker(&app);
        Ok(())
    }

    fn spawn(&self, tasks: Vec<NewTask>) -> Result<(), SpawnError> {
        self.submit(tasks).map(drop)
    }

    fn store(&self, tasks: Vec<NewTask>) -> BoxFuture<'static, Result<Vec<StoredTaskId>, SpawnError>> {
        match self.submit(tasks) {
            Err(error) => Box::pin(ready(Err(error))),
            // The writer ends without an answer only if the runtime shuts down.
            Ok(stored) => Box::pin(async { stored.await.unwrap_or(Err(SpawnError::Closed)) }),
        }
    }
}

impl<S: State, C> fmt::Debug for StoreSink<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreSink").finish_non_exhaustive()
    }
}

/// Stores what was spawned, until nothing is left.
async fn write<S: State, C: Send + Sync + 'static>(app: Arc<App<S, C>>) {
    loop {
        let batches = app.worker.take();
        if batches.is_empty() {
            return;
        }
        store_batches(&app, batches).await;
    }
}

/// Stores batches in one transaction, or each in its own if one of them cannot be stored.
async fn store_batches<S: State, C: Send + Sync + 'static>(app: &App<S, C>, batches: Vec<Batch>) {
    let all = batches.iter().flat_map(|batch| batch.tasks.iter().cloned()).collect();
    match enqueue(app, all).await {
        Err(error) if batches.len() > 1 && !error.may_pass() => {
            for batch in batches {
                let stored = enqueue(app, batch.tasks.clone()).await;
                answer(vec![batch], stored);
            }
        }
        stored => answer(batches, stored),
    }
}

/// Tells the callers of the batches that they are stored, or why they are not.
fn answer(batches: Vec<Batch>, stored: Result<Vec<StoredTaskId>, StoreError>) {
    let mut stored = stored.map(Vec::into_iter);
    for Batch { tasks, stored: waiting } in batches {
        let answer = match &mut stored {
            Ok(ids) => Ok(ids.take(tasks.len()).collect()),
            Err(error) => {
                for task in &tasks {
                    catch_panic(|| {
                        tracing::error!(name = &*task.name, id = %task.id, %error, "a durable task is not stored");
                    });
                }
                Err(SpawnError::not_stored(error))
            }
        };
        // The caller may not wait, and its waker may be the user's.
        catch_panic(|| drop(waiting.send(answer)));
    }
}

async fn enqueue<S: State, C: Send + Sync + 'static>(
    app: &App<S, C>,
    tasks: Vec<NewTask>,
) -> Result<Vec<StoredTaskId>, StoreError> {
    let enqueue = async {
        let session = app.session().await?;
        patiently(|| session.store.enqueue(tasks.clone())).await
    };
    // A store is code of others, and its panic must not end the writer.
    let enqueued = AssertUnwindSafe(enqueue).catch_unwind().await.unwrap_or_else(|panic| {
        Err(StoreError::new("enqueue", StoreErrorKind::Other).with_source(panic_message(panic).to_string()))
    })?;
    let id = |enqueued| match enqueued {
        Enqueued::Made(id) | Enqueued::Skipped(id) | Enqueued::Replaced(id) | Enqueued::Known(id) => id,
    };
    Ok(enqueued.into_iter().map(id).collect())
}

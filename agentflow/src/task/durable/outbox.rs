//! [`DurableSink`]: the destination of new durable tasks, and [`Outbox`]: that of one attempt of a node.

use std::{
    fmt,
    future::ready,
    sync::{Arc, OnceLock},
};

use futures_util::future::BoxFuture;

use crate::{
    store::{NewTask, StoredTaskId},
    sync::Mutex,
    task::SpawnError,
};

/// The destination of the durable tasks that are spawned through a manager.
pub trait DurableSink: Send + Sync {
    /// Refuses a task that cannot be spawned, such as one that no app registers. Nothing is stored.
    ///
    /// # Errors
    ///
    /// [`SpawnError::Unregistered`].
    fn check(&self, name: &'static str) -> Result<(), SpawnError>;

    /// Takes tasks that were [checked](Self::check), to store them together.
    ///
    /// # Errors
    ///
    /// [`SpawnError`] if they are not stored.
    fn spawn(&self, tasks: Vec<NewTask>) -> Result<(), SpawnError>;

    /// Takes tasks as [`spawn`](Self::spawn) does. The future, which may be dropped, waits until they are stored, and returns
    /// their ids: of a task that was not made because of its key, that of the task which stands for it.
    ///
    /// # Errors
    ///
    /// [`SpawnError`] if they are not stored.
    fn store(&self, tasks: Vec<NewTask>) -> BoxFuture<'static, Result<Vec<StoredTaskId>, SpawnError>> {
        let ids = tasks.iter().map(|task| task.id).collect();
        Box::pin(ready(self.spawn(tasks).map(|()| ids)))
    }
}

/// The durable tasks that one attempt has spawned. They are stored with the attempt's result, or never.
pub(crate) struct Outbox {
    /// `None` once the attempt has ended.
    tasks: Mutex<Option<Vec<NewTask>>>,
    /// The destination of tasks that are spawned after the attempt has ended.
    after: Arc<dyn DurableSink>,
}

impl Outbox {
    pub(crate) fn new(after: Arc<dyn DurableSink>) -> Self {
        Self { tasks: Mutex::new(Some(Vec::new())), after }
    }

    /// Adds tasks. Returns them if the attempt has ended.
    pub(crate) fn extend(&self, spawned: Vec<NewTask>) -> Option<Vec<NewTask>> {
        match &mut *self.tasks.lock() {
            Some(tasks) => tasks.extend(spawned),
            None => return Some(spawned),
        }
        None
    }

    /// Ends the attempt and returns its tasks.
    fn close(&self) -> Vec<NewTask> {
        self.tasks.lock().take().unwrap_or_default()
    }
}

impl DurableSink for Outbox {
    fn check(&self, name: &'static str) -> Result<(), SpawnError> {
        self.after.check(name)
    }

    fn spawn(&self, spawned: Vec<NewTask>) -> Result<(), SpawnError> {
        // The lock is released before the other destination is called.
        self.extend(spawned).map_or(Ok(()), |late| self.after.spawn(late))
    }

    fn store(&self, spawned: Vec<NewTask>) -> BoxFuture<'static, Result<Vec<StoredTaskId>, SpawnError>> {
        let ids = spawned.iter().map(|task| task.id).collect();
        match self.extend(spawned) {
            None => Box::pin(ready(Ok(ids))),
            Some(late) => self.after.store(late),
        }
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Outbox").finish_non_exhaustive()
    }
}

/// The place for the outbox of an attempt, which is made when a node first asks for its manager. An attempt that is dropped
/// has spawned nothing.
#[derive(Debug, Default)]
pub(crate) struct AttemptOutbox(OnceLock<Arc<Outbox>>);

impl AttemptOutbox {
    /// Returns the outbox, which hands tasks on to `after` once the attempt has ended.
    pub(crate) fn open(&self, after: &Arc<dyn DurableSink>) -> Arc<Outbox> {
        Arc::clone(self.0.get_or_init(|| Arc::new(Outbox::new(Arc::clone(after)))))
    }

    /// Ends the attempt and returns its tasks.
    #[inline]
    pub(crate) fn close(&self) -> Vec<NewTask> {
        self.0.get().map(|outbox| outbox.close()).unwrap_or_default()
    }
}

impl Drop for AttemptOutbox {
    #[inline]
    fn drop(&mut self) {
        self.close();
    }
}

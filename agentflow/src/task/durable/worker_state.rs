//! [`WorkerState`]: what an app's worker and the spawns of its durable tasks share.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::{MutexGuard, Notify, oneshot};

use crate::{
    store::{NewTask, StoredTaskId},
    sync::Mutex,
    task::SpawnError,
};

/// The numbers of durable tasks that a process runs at a time.
#[derive(Debug)]
pub(crate) struct TaskLimits {
    pub(crate) all: usize,
    pub(crate) named: HashMap<Arc<str>, usize>,
}

impl Default for TaskLimits {
    fn default() -> Self {
        Self { all: 64, named: HashMap::new() }
    }
}

/// The state that the worker of an app, the spawns of durable tasks and the shutdown share.
#[derive(Debug)]
pub(crate) struct WorkerState {
    pub(crate) limits: TaskLimits,
    /// Relaxed, because it guards nothing but itself.
    is_started: AtomicBool,
    /// Held while the worker fires schedules and claims tasks.
    pass: tokio::sync::Mutex<()>,
    queue: Mutex<Queue>,
    /// Notified when the queue is empty.
    stored: Notify,
    /// The schedules that the app has registered.
    #[cfg(feature = "schedule")]
    pub(crate) schedules: Mutex<super::schedule::Schedules>,
}

/// Tasks that wait until they are stored, in the order in which they were spawned.
#[derive(Debug, Default)]
struct Queue {
    batches: Vec<Batch>,
    /// Set while a writer stores batches.
    is_written: bool,
}

/// Tasks that are stored together.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) tasks: Vec<NewTask>,
    /// Receives the ids of the tasks.
    pub(crate) stored: oneshot::Sender<Result<Vec<StoredTaskId>, SpawnError>>,
}

impl WorkerState {
    pub(crate) fn new(limits: TaskLimits) -> Self {
        Self {
            limits,
            is_started: AtomicBool::new(false),
            pass: tokio::sync::Mutex::default(),
            queue: Mutex::default(),
            stored: Notify::new(),
            #[cfg(feature = "schedule")]
            schedules: Mutex::default(),
        }
    }

    /// Returns whether the caller is the first one to start the worker.
    pub(crate) fn starts(&self) -> bool {
        !self.is_started.load(Ordering::Relaxed) && !self.is_started.swap(true, Ordering::Relaxed)
    }

    /// Begins a pass of the worker.
    pub(crate) async fn begin_pass(&self) -> MutexGuard<'_, ()> {
        self.pass.lock().await
    }

    /// Waits until the worker of a draining app claims nothing more.
    pub(crate) async fn stopped(&self) {
        drop(self.pass.lock().await);
    }

    /// Adds tasks to be stored. Returns whether the caller has to start a writer.
    pub(crate) fn push(&self, batch: Batch) -> bool {
        let mut queue = self.queue.lock();
        queue.batches.push(batch);
        !std::mem::replace(&mut queue.is_written, true)
    }

    /// Takes all tasks that are to be stored. The writer ends if there are none.
    pub(crate) fn take(&self) -> Vec<Batch> {
        let mut queue = self.queue.lock();
        let batches = std::mem::take(&mut queue.batches);
        queue.is_written = !batches.is_empty();
        drop(queue);
        if batches.is_empty() {
            self.stored.notify_waiters();
        }
        batches
    }

    /// Waits until all tasks that were spawned are stored, or have failed to be.
    pub(crate) async fn wait_until_stored(&self) {
        loop {
            let mut stored = std::pin::pin!(self.stored.notified());
            stored.as_mut().enable();
            if !self.queue.lock().is_written {
                return;
            }
            stored.await;
        }
    }
}

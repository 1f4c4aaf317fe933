//! [`RunTasks`]: the live tasks that the end of a run concerns.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    super::options::OnRunEnd,
    sync::{Mutex, Notify},
    task::{StopRequest, TaskRecord, TaskRef},
};
use crate::sync::guard_waker;

/// The live tasks of a run that it cancels or waits for when it ends.
#[derive(Debug, Default)]
pub(crate) struct RunTasks {
    owned: Mutex<Owned>,
    ended: Notify,
}

#[derive(Debug, Default)]
struct Owned {
    run_has_ended: bool,
    tasks: BTreeMap<TaskRef, Arc<TaskRecord>>,
}

impl RunTasks {
    /// Adds a task that was admitted, or cancels it if the run has ended meanwhile. The caller must not hold the
    /// registry's lock.
    pub(crate) fn add(&self, task: &Arc<TaskRecord>) {
        let mut owned = self.owned.lock();
        if !owned.run_has_ended {
            owned.tasks.insert(task.at, Arc::clone(task));
            return;
        }
        drop(owned);
        if task.spec.extras().on_run_end == OnRunEnd::Cancel {
            task.request_stop(StopRequest::Cancel);
        }
    }

    /// Removes a task that has ended.
    pub(crate) fn remove(&self, task: &TaskRecord) {
        self.owned.lock().tasks.remove(&task.at);
        self.ended.notify_waiters();
    }

    /// Waits until none of the tasks with [`OnRunEnd::Wait`] is left, those spawned meanwhile included.
    pub(crate) async fn wait(&self) {
        loop {
            // Created before the check, so that an end between the two is not missed.
            let ended = self.ended.notified();
            if !self.owned.lock().tasks.values().any(|task| task.spec.extras().on_run_end == OnRunEnd::Wait) {
                return;
            }
            guard_waker(ended).await;
        }
    }

    /// Cancels the tasks with [`OnRunEnd::Cancel`], and lets go of the others: the run has ended.
    pub(crate) fn run_ended(&self) {
        let left = {
            let mut owned = self.owned.lock();
            owned.run_has_ended = true;
            std::mem::take(&mut owned.tasks)
        };
        let mut cancelled: Vec<_> = left.into_values().collect();
        cancelled.retain(|task| task.spec.extras().on_run_end == OnRunEnd::Cancel);
        // Mark all of them first, so that ending one of them cannot start another.
        for task in &cancelled {
            task.mark_stop_requested(StopRequest::Cancel);
        }
        for task in cancelled {
            task.request_stop(StopRequest::Cancel);
        }
    }
}

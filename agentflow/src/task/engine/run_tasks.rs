//! [`RunTasks`]: a run as its tasks see it: whether it lives, and the live tasks that its end concerns.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    super::options::OnRunEnd,
    sync::{Mutex, Notify},
    task::{StopRequest, TaskRecord, TaskRef},
};
use crate::sync::guard_waker;

/// Whether a run lives, and the live tasks that it cancels or waits for when it ends.
#[derive(Debug, Default)]
pub(crate) struct RunTasks {
    owned: Mutex<Owned>,
    /// Notified when the last task that the run waits for has ended, and when the run has.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Owned {
    run_has_ended: bool,
    tasks: BTreeMap<TaskRef, Arc<TaskRecord>>,
    /// The number of tasks with [`OnRunEnd::Wait`] among them.
    waited_for: usize,
}

impl RunTasks {
    /// Returns whether the run has not ended.
    pub(crate) fn is_live(&self) -> bool {
        !self.owned.lock().run_has_ended
    }

    /// Waits until the run has ended.
    pub(crate) async fn ended(&self) {
        loop {
            // Created before the check, so that an end between the two is not missed.
            let changed = self.changed.notified();
            if !self.is_live() {
                return;
            }
            guard_waker(changed).await;
        }
    }

    /// Adds a task that was admitted, or cancels it if the run has ended meanwhile. The caller must not hold the
    /// registry's lock.
    pub(crate) fn add(&self, task: &Arc<TaskRecord>) {
        let mut owned = self.owned.lock();
        if !owned.run_has_ended {
            owned.tasks.insert(task.at, Arc::clone(task));
            owned.waited_for += usize::from(is_waited_for(task));
            return;
        }
        drop(owned);
        if task.spec.extras().on_run_end == OnRunEnd::Cancel {
            task.request_stop(StopRequest::Cancel);
        }
    }

    /// Removes a task that has ended.
    pub(crate) fn remove(&self, task: &TaskRecord) {
        let was_last = {
            let mut owned = self.owned.lock();
            let is_waited_for = owned.tasks.remove(&task.at).is_some() && is_waited_for(task);
            owned.waited_for -= usize::from(is_waited_for);
            is_waited_for && owned.waited_for == 0
        };
        if was_last {
            self.changed.notify_waiters();
        }
    }

    /// Waits until none of the tasks with [`OnRunEnd::Wait`] is left, those spawned meanwhile included.
    pub(crate) async fn wait(&self) {
        loop {
            // Created before the check, so that an end between the two is not missed.
            let changed = self.changed.notified();
            if self.owned.lock().waited_for == 0 {
                return;
            }
            guard_waker(changed).await;
        }
    }

    /// Ends the run's right to spawn, cancels the tasks with [`OnRunEnd::Cancel`], and lets go of the others.
    pub(crate) fn run_ended(&self) {
        let left = {
            let mut owned = self.owned.lock();
            owned.run_has_ended = true;
            owned.waited_for = 0;
            std::mem::take(&mut owned.tasks)
        };
        // Spawns that wait for a free slot are refused now.
        self.changed.notify_waiters();
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

fn is_waited_for(task: &TaskRecord) -> bool {
    task.spec.extras().on_run_end == OnRunEnd::Wait
}

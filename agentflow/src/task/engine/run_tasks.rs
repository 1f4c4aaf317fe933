//! [`RunTasks`]: the live tasks of one run that the run cancels or waits for when it ends.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    super::{id::TaskId, options::OnRunEnd},
    sync::{Mutex, Notify},
    task::{StopRequest, TaskRecord},
};
use crate::sync::guard_waker;

/// The liveness of a run, and the live tasks that the run cancels or waits for when it ends.
#[derive(Debug, Default)]
pub(crate) struct RunTasks {
    owned: Mutex<Owned>,
    /// Notified when the last task that the run waits for has ended, and when the run has ended.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Owned {
    run_has_ended: bool,
    /// In the order of their spawns in each manager. The address is that of the record: the nodes of a run may use several
    /// managers, whose ids may be equal.
    tasks: BTreeMap<(TaskId, usize), Arc<TaskRecord>>,
    /// The number of `tasks` with [`OnRunEnd::Wait`].
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
            // The future is created before the check, so that an end between the two is not missed.
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
            owned.tasks.insert((task.id, address(task)), Arc::clone(task));
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
            let is_waited_for = owned.tasks.remove(&(task.id, address(task))).is_some() && is_waited_for(task);
            owned.waited_for -= usize::from(is_waited_for);
            is_waited_for && owned.waited_for == 0
        };
        if was_last {
            self.changed.notify_waiters();
        }
    }

    /// Waits until all tasks with [`OnRunEnd::Wait`] have ended, including those that are spawned meanwhile.
    pub(crate) async fn wait(&self) {
        loop {
            // The future is created before the check, so that an end between the two is not missed.
            let changed = self.changed.notified();
            if self.owned.lock().waited_for == 0 {
                return;
            }
            guard_waker(changed).await;
        }
    }

    /// Records that the run has ended, so that it spawns no more tasks. Cancels the tasks with [`OnRunEnd::Cancel`] and
    /// forgets the others.
    pub(crate) fn run_ended(&self) {
        let left = {
            let mut owned = self.owned.lock();
            owned.run_has_ended = true;
            owned.waited_for = 0;
            std::mem::take(&mut owned.tasks)
        };
        // Wake the spawns of this run that wait for a free slot: they are refused now.
        self.changed.notify_waiters();
        let mut cancelled: Vec<_> = left.into_values().collect();
        cancelled.retain(|task| task.spec.extras().on_run_end == OnRunEnd::Cancel);
        // Mark all tasks before any of them is woken, so that the end of one cannot start another.
        for task in &cancelled {
            task.mark_stop_requested(StopRequest::Cancel);
        }
        for task in cancelled {
            task.request_stop(StopRequest::Cancel);
        }
    }
}

fn address(task: &TaskRecord) -> usize {
    std::ptr::from_ref(task).addr()
}

fn is_waited_for(task: &TaskRecord) -> bool {
    task.spec.extras().on_run_end == OnRunEnd::Wait
}

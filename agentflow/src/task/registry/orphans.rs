//! Orphans: tasks whose manager lost its last owner without having been closed.

use std::sync::Arc;

use super::{
    super::engine::{
        current::CurrentTask,
        log,
        task::{StopRequest, TaskRecord},
    },
    Registry, mark_all,
    state::ManagerPhase,
};

impl Registry {
    /// Refuses all spawns and cancels all tasks, because the last owner of the manager was dropped.
    pub(crate) fn cancel_orphans(self: &Arc<Self>) {
        let dropped_in = CurrentTask::of_registry(self);
        let mut orphans: Vec<_> = {
            let mut state = self.lock();
            state.phase = ManagerPhase::Closed;
            // Tasks that were already requested to stop are not orphans: a close or a caller is responsible for them.
            let is_orphan = |task: &&Arc<TaskRecord>| task.stop_request() == StopRequest::None;
            let orphans: Vec<_> = state.tasks().filter(is_orphan).cloned().collect();
            mark_all(&orphans, StopRequest::Cancel);
            state.last_owner_dropped_in = dropped_in;
            orphans
        };
        self.notify_closed();
        for task in &orphans {
            task.request_stop(StopRequest::Cancel);
        }
        // The warning names the tasks that were cut off: those that were informed through their token, and the others
        // unless they ended by themselves meanwhile. The task that runs here and drops the last owner may be about to
        // return, so `log_if_orphan` logs it later.
        orphans.retain(|task| Some(task.id) != dropped_in && (task.spec.token.is_some() || !task.ended_by_itself()));
        if !orphans.is_empty() {
            log::orphaned(&orphans);
        }
    }

    /// Logs a task that was cut off as an orphan, if the last owner of the manager was dropped in it.
    pub(crate) fn log_if_orphan(&self, task: &Arc<TaskRecord>) {
        if self.lock().last_owner_dropped_in == Some(task.id) {
            log::orphaned(std::slice::from_ref(task));
        }
    }
}

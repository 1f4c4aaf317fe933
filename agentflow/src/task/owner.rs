//! [`OnRunEnd`]: what becomes of a task when the run that spawned it ends.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
};

use super::{
    record::{Request, Task, TaskRef},
    sync::{Mutex, MutexGuard, Notify},
    wait::mark,
};

/// What becomes of a task when the run that spawned it ends, however that comes about.
///
/// It concerns the tasks that a node spawns with the manager that it is given, and the tasks that those spawn; each says it
/// for itself. A task without a run has no run that could end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnRunEnd {
    /// The task lives on: fire and forget.
    #[default]
    Detach,
    /// The task is cancelled when the run has ended, or is dropped. The run doesn't wait for it.
    Cancel,
    /// The run waits for the task before it gives its result. Where the run is cut short while it waits (its token, its
    /// timeout, the app's shutdown) it waits no longer, its result stands, and the task lives on.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use agentflow::{AgentState, BackgroundTaskManager, NodeError, RunConfig, graph, node, task::OnRunEnd};
    ///
    /// #[node]
    /// async fn answer(state: &mut AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
    ///     let save = async { tokio::time::sleep(Duration::from_millis(1)).await };
    ///     task_manager.create_task(save).name("save").on_run_end(OnRunEnd::Wait).spawn()?;
    ///     Ok(())
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), agentflow::RunError> {
    /// let app = graph! { answer -> END };
    /// app.invoke(AgentState::default(), RunConfig::new()).await?;
    /// assert_eq!(app.task_manager().stats().completed, 1);
    /// # Ok(())
    /// # }
    /// ```
    Wait,
}

/// The live tasks that a run doesn't just leave behind.
#[derive(Debug, Default)]
pub(crate) struct RunTasks {
    owned: Mutex<Owned>,
    ended: Notify,
}

#[derive(Debug, Default)]
struct Owned {
    run_has_ended: bool,
    tasks: BTreeMap<TaskRef, Arc<Task>>,
}

impl RunTasks {
    /// Called for each task of the run, when it has its place. The caller must not hold the registry's lock.
    pub(super) fn adopt(&self, task: &Arc<Task>) {
        let mut owned = self.lock();
        if !owned.run_has_ended {
            owned.tasks.insert(task.at, Arc::clone(task));
            return;
        }
        drop(owned);
        if task.spec.on_run_end() == OnRunEnd::Cancel {
            task.ask(Request::Cancel);
        }
    }

    /// Called for each task that was adopted, when it has ended.
    pub(super) fn let_go(&self, task: &Task) {
        self.lock().tasks.remove(&task.at);
        self.ended.notify_waiters();
    }

    /// Waits for those that the run is to wait for, those spawned meanwhile included.
    pub(crate) async fn wait(&self) {
        loop {
            let ended = self.ended.notified();
            if !self.lock().tasks.values().any(|task| task.spec.on_run_end() == OnRunEnd::Wait) {
                return;
            }
            ended.await;
        }
    }

    /// The run has ended.
    pub(crate) fn run_ended(&self) {
        let left = {
            let mut owned = self.lock();
            owned.run_has_ended = true;
            std::mem::take(&mut owned.tasks)
        };
        let cancelled: Vec<_> = left.into_values().filter(|task| task.spec.on_run_end() == OnRunEnd::Cancel).collect();
        mark(&cancelled, Request::Cancel);
        for task in cancelled {
            task.ask(Request::Cancel);
        }
    }

    /// A map and a flag, whole after every statement: a panic elsewhere doesn't spoil them.
    fn lock(&self) -> MutexGuard<'_, Owned> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

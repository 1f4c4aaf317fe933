//! [`DurableTasks`]: the durable tasks in an app's store.

use std::{fmt, sync::Arc};

use super::worker::stuck_reason;
use crate::{
    graph::CompiledGraph,
    session::{POLL, Session, patiently},
    state::State,
    store::{StoreError, StoredTaskFilter, StoredTaskId, TaskChanged, TaskRow, TaskStatus},
};

/// The number of pending tasks that are looked at together.
const PAGE: usize = 500;

/// The durable tasks in an app's store, made by [`CompiledGraph::tasks`]: those of all processes, also those that have ended.
///
/// ```
/// use agentflow::{
///     AgentState, graph, node,
///     store::{MemoryStore, StoredTaskFilter, TaskStatus},
///     task,
/// };
///
/// #[task]
/// async fn deliver(args: String) -> Result<(), std::io::Error> {
///     Err(std::io::Error::other(format!("{args} does not answer")))
/// }
///
/// #[node]
/// async fn answer(_state: &mut AgentState) {}
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let app = graph! {
///     name = "mail";
///     answer -> END;
///     tasks { deliver }
///     compile { store: MemoryStore::new() }
/// };
/// let id = app.task_manager().create_durable_task::<deliver>("mx1".to_owned()).spawn_stored().await?;
/// let ended = app.tasks().wait(id).await?.expect("the task is stored");
/// assert_eq!(ended.status, TaskStatus::Failed);
/// assert_eq!(ended.error.as_deref(), Some("mx1 does not answer"));
///
/// let mut failed = StoredTaskFilter::default();
/// failed.status = Some(TaskStatus::Failed);
/// assert_eq!(app.tasks().list(failed).await?.len(), 1);
/// app.tasks().retry(id).await?; // by hand: its attempts start over
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// Each method fails if the store fails for 30 s, or with an error that does not pass.
///
/// # Cancel safety
///
/// A change whose future is dropped is made or not.
pub struct DurableTasks<S: State, C = ()> {
    graph: CompiledGraph<S, C>,
}

/// A task that waits, and that the app cannot run: see [`DurableTasks::stuck`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StuckTask {
    /// The task.
    pub row: TaskRow,
    /// The reason why the app cannot run it.
    pub reason: String,
}

impl<S: State, C: Send + Sync + 'static> CompiledGraph<S, C> {
    /// Returns the durable tasks in the app's store, to list, cancel, retry and delete them.
    #[must_use]
    pub fn tasks(&self) -> DurableTasks<S, C> {
        DurableTasks { graph: self.clone() }
    }
}

impl<S: State, C: Send + Sync + 'static> DurableTasks<S, C> {
    async fn session(&self) -> Result<Arc<Session>, StoreError> {
        self.graph.app.session().await
    }

    /// Returns the tasks that the filter selects, newest first.
    #[allow(clippy::missing_errors_doc, reason = "the type documents it")]
    pub async fn list(&self, filter: StoredTaskFilter) -> Result<Vec<TaskRow>, StoreError> {
        let session = self.session().await?;
        patiently(|| session.store.tasks(filter.clone())).await
    }

    /// Returns a task.
    #[allow(clippy::missing_errors_doc, reason = "the type documents it")]
    pub async fn get(&self, task: StoredTaskId) -> Result<Option<TaskRow>, StoreError> {
        let filter = StoredTaskFilter { ids: Some(vec![task]), ..StoredTaskFilter::default() };
        Ok(self.list(filter).await?.pop())
    }

    /// Waits until a task has ended, in this process or in another one, and returns it; `None` if there is no such task, or
    /// not any more.
    #[allow(clippy::missing_errors_doc, reason = "the type documents it")]
    pub async fn wait(&self, task: StoredTaskId) -> Result<Option<TaskRow>, StoreError> {
        let session = self.session().await?;
        let mut since = 0;
        loop {
            match self.get(task).await? {
                Some(row) if !row.status.has_ended() => {}
                ended => return Ok(ended),
            }
            match session.store.changes(since, POLL).await {
                Ok(now) => since = now,
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// Cancels a task. A running one is stopped at once if this process runs it, and else when its owner sees the mark, within
    /// about a second; if it ends before that, that is its outcome.
    #[allow(clippy::missing_errors_doc, reason = "the type documents it")]
    pub async fn cancel(&self, task: StoredTaskId) -> Result<TaskChanged, StoreError> {
        let session = self.session().await?;
        let changed = patiently(|| session.store.cancel_task(task)).await?;
        if let TaskChanged::Marked(owner) = changed
            && owner == session.owner()
        {
            session.cancel_task(task);
        }
        Ok(changed)
    }

    /// Makes a failed task pending again, due at once; its attempts and its timeout start over.
    #[allow(clippy::missing_errors_doc, reason = "the type documents it")]
    pub async fn retry(&self, task: StoredTaskId) -> Result<TaskChanged, StoreError> {
        let session = self.session().await?;
        patiently(|| session.store.retry_task(task)).await
    }

    /// Deletes a task that has ended.
    #[allow(clippy::missing_errors_doc, reason = "the type documents it")]
    pub async fn delete(&self, task: StoredTaskId) -> Result<TaskChanged, StoreError> {
        let session = self.session().await?;
        patiently(|| session.store.delete_task(task)).await
    }

    /// Returns the pending tasks that this app cannot run: it does not register their names, or cannot decode their arguments.
    /// They wait for a process that can.
    #[allow(clippy::missing_errors_doc, reason = "the type documents it")]
    pub async fn stuck(&self) -> Result<Vec<StuckTask>, StoreError> {
        let (status, limit) = (Some(TaskStatus::Pending), Some(PAGE));
        let mut filter = StoredTaskFilter { status, limit, ..StoredTaskFilter::default() };
        let mut stuck = Vec::new();
        loop {
            let page = self.list(filter.clone()).await?;
            filter.offset += page.len();
            let is_last = page.len() < PAGE;
            stuck.extend(page.into_iter().filter_map(|row| {
                let reason = stuck_reason(self.graph.app.tasks.get(&row.task.name), &row)?;
                Some(StuckTask { row, reason })
            }));
            if is_last {
                return Ok(stuck);
            }
        }
    }
}

impl<S: State, C> fmt::Debug for DurableTasks<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableTasks").field("graph", &self.graph.name()).finish()
    }
}

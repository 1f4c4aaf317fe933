//! [`TaskFilter`]: some of a manager's tasks, by name, by run, by key, or one by one.

use std::{borrow::Cow, sync::Arc};

use super::{
    engine::task::{TaskKey, TaskRecord},
    handle::TaskHandle,
    id::TaskId,
};
use crate::run_id::RunId;

/// Selects some of a manager's tasks: those of a name, of a run, or of a key, or a list of tasks.
///
/// A name or a run selects the tasks that are spawned later as well. Methods that take an `impl Into<TaskFilter>` also
/// take a name, a [`RunId`], a [`TaskId`], a list of ids, and a reference to a [`TaskHandle`].
///
/// ```
/// use agentflow::{BackgroundTaskManager, task::TaskFilter};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let tasks = BackgroundTaskManager::new();
/// let mail = tasks.create_task(async {}).name("mail").spawn()?;
/// tasks.wait_for("mail", None).await?;
/// tasks.wait_for(TaskFilter::named("mail"), None).await?; // the same
/// tasks.wait_for(&mail, None).await?; // this one only
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskFilter(pub(super) Selection);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selection {
    All,
    Ids(Vec<TaskId>),
    Named(Cow<'static, str>),
    OfRun(RunId),
    Keyed(TaskKey),
}

impl TaskFilter {
    /// Selects all tasks.
    #[must_use]
    pub fn all() -> Self {
        Self(Selection::All)
    }

    /// Selects the tasks of this name.
    pub fn named(name: impl Into<Cow<'static, str>>) -> Self {
        Self(Selection::Named(name.into()))
    }

    /// Selects the tasks of this run: those that its nodes spawned, and those that these tasks spawned.
    #[must_use]
    pub fn of_run(run: RunId) -> Self {
        Self(Selection::OfRun(run))
    }

    /// Selects the tasks with this key: the one that runs, and those that are queued behind it. The scope is the tasks'
    /// name, or the scope that [`key_in`](crate::task::TaskBuilder::key_in) has set.
    pub fn keyed(scope: impl Into<Cow<'static, str>>, key: impl Into<Arc<str>>) -> Self {
        Self(Selection::Keyed(TaskKey { scope: Some(scope.into()), key: key.into() }))
    }
}

impl Selection {
    pub(super) fn matches(&self, task: &TaskRecord) -> bool {
        match self {
            Self::All => true,
            Self::Ids(ids) => ids.contains(&task.id),
            Self::Named(name) => task.spec.name == *name,
            Self::OfRun(run) => task.run() == Some(*run),
            Self::Keyed(key) => task.spec.scoped_key() == Some(key),
        }
    }
}

/// Selects one task.
impl From<TaskId> for TaskFilter {
    fn from(id: TaskId) -> Self {
        Self::from_iter([id])
    }
}

/// Selects these tasks.
impl From<Vec<TaskId>> for TaskFilter {
    fn from(ids: Vec<TaskId>) -> Self {
        Self::from_iter(ids)
    }
}

/// Selects these tasks.
impl FromIterator<TaskId> for TaskFilter {
    fn from_iter<I: IntoIterator<Item = TaskId>>(ids: I) -> Self {
        let mut ids: Vec<_> = ids.into_iter().collect();
        ids.sort_unstable();
        ids.dedup();
        Self(Selection::Ids(ids))
    }
}

/// Selects one task.
impl<T> From<&TaskHandle<T>> for TaskFilter {
    fn from(handle: &TaskHandle<T>) -> Self {
        handle.id().into()
    }
}

/// Selects the tasks of a run.
impl From<RunId> for TaskFilter {
    fn from(run: RunId) -> Self {
        Self::of_run(run)
    }
}

/// Selects the tasks of a name.
impl From<&str> for TaskFilter {
    fn from(name: &str) -> Self {
        Self::named(name.to_owned())
    }
}

/// Selects the tasks of a name.
impl From<String> for TaskFilter {
    fn from(name: String) -> Self {
        Self::named(name)
    }
}

//! [`CurrentTask`]: the task that runs on this thread.

use std::{cell::RefCell, sync::Arc};

use super::{
    super::registry::Registry,
    sync,
    task::{TaskRecord, TaskRef},
};

sync::thread_local! {
    /// The task that runs on this thread: set around every poll and the drop of a task, and in its blocking closure.
    static CURRENT: RefCell<Option<CurrentTask>> = const { RefCell::new(None) };
}

/// A task, and the registry that it belongs to.
#[derive(Clone, Debug)]
pub(crate) struct CurrentTask {
    pub(crate) registry: Arc<Registry>,
    pub(crate) task: Arc<TaskRecord>,
}

impl CurrentTask {
    /// Calls `run` as this task.
    pub(crate) fn scope<T>(current: &mut Option<Self>, run: impl FnOnce() -> T) -> T {
        /// Swaps back when it is dropped, so that a panic leaves the thread as it was.
        struct Restore<'a>(&'a mut Option<CurrentTask>);

        impl Drop for Restore<'_> {
            fn drop(&mut self) {
                swap(self.0);
            }
        }

        // `try_with`: the thread-local may already be destroyed during thread shutdown.
        fn swap(current: &mut Option<CurrentTask>) {
            let _ = CURRENT.try_with(|cell| std::mem::swap(&mut *cell.borrow_mut(), current));
        }

        swap(current);
        let _restore = Restore(current);
        run()
    }

    /// Returns the task that runs on this thread.
    pub(crate) fn get() -> Option<Self> {
        CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
    }

    /// Returns the task of this registry that runs on this thread: a task of another manager is no parent.
    pub(crate) fn of_registry(registry: &Arc<Registry>) -> Option<TaskRef> {
        let task = |current: &RefCell<Option<Self>>| {
            let current = current.borrow();
            current.as_ref().filter(|current| Arc::ptr_eq(&current.registry, registry)).map(|current| current.task.at)
        };
        CURRENT.try_with(task).ok().flatten()
    }
}

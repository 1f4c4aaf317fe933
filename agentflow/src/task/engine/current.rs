//! [`CurrentTask`]: the task that runs on this thread.

use std::{
    cell::RefCell,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use super::{
    super::{id::TaskId, registry::Registry},
    sync,
    task::TaskRecord,
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

        // `try_with` is used because the thread-local may already be destroyed while the thread ends.
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
    pub(crate) fn of_registry(registry: &Arc<Registry>) -> Option<TaskId> {
        let task = |current: &RefCell<Option<Self>>| {
            let current = current.borrow();
            current.as_ref().filter(|current| Arc::ptr_eq(&current.registry, registry)).map(|current| current.task.id)
        };
        CURRENT.try_with(task).ok().flatten()
    }
}

/// Makes a future a part of the task that runs on this thread, wherever the future is polled later.
pub(crate) fn inherit_task<F: Future>(future: F) -> InheritTask<F> {
    InheritTask { current: CurrentTask::get(), future }
}

pin_project! {
    /// A future that is a part of a task.
    pub(crate) struct InheritTask<F> {
        current: Option<CurrentTask>,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for InheritTask<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if this.current.is_none() {
            return this.future.poll(cx);
        }
        CurrentTask::scope(this.current, || this.future.poll(cx))
    }
}

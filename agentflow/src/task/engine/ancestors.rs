//! [`Ancestors`]: the tasks that spawned a task, directly or not.

use std::{fmt, sync::Arc};

use super::{super::id::TaskId, sync::Mutex};

/// The live ancestors of a task: a link to its parent, and to the parent's own ancestors, which all its children share.
///
/// A child therefore costs the same at any depth. All links are followed and changed under the registry's lock. Ancestors
/// that have ended are unlinked when a descendant ends or follows the link, so a chain of tasks that each spawn the next
/// keeps no more links than tasks that were live at the same time.
pub(crate) struct Ancestors(Mutex<Option<Link>>);

#[derive(Clone)]
struct Link {
    parent: TaskId,
    above: Option<Arc<Ancestors>>,
}

impl Ancestors {
    /// Returns the ancestors of a child of `parent`, which has the ancestors `above` itself.
    pub(crate) fn of_child(parent: TaskId, above: Option<&Arc<Self>>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(Link { parent, above: above.cloned() }))))
    }

    /// Returns the live ancestors, the parent first.
    pub(crate) fn live(self: &Arc<Self>, is_live: impl Fn(TaskId) -> bool) -> Vec<TaskId> {
        let mut live = Vec::new();
        let mut next = Some(Arc::clone(self));
        while let Some(ancestors) = next {
            next = ancestors.first_live(&is_live).and_then(|link| {
                live.push(link.parent);
                link.above
            });
        }
        live
    }

    /// Lets go of what the task itself needs no more, now that it has ended; its descendants may still need it.
    pub(crate) fn task_ended(self: &Arc<Self>, is_live: impl Fn(TaskId) -> bool) {
        // Only the task's record holds it, and a child can't be spawned any more.
        if Arc::strong_count(self) == 1 {
            let link = self.0.lock().take();
            drop(link);
        } else {
            self.first_live(&is_live);
        }
    }

    /// Returns the link to the nearest live ancestor, and unlinks those below it.
    fn first_live(&self, is_live: &impl Fn(TaskId) -> bool) -> Option<Link> {
        loop {
            let link = self.0.lock().clone()?;
            if is_live(link.parent) {
                return Some(link);
            }
            let above = link.above.as_ref().and_then(|above| above.0.lock().clone());
            *self.0.lock() = above;
        }
    }
}

/// A long chain is dropped link by link: dropping one within the other could overflow the stack.
impl Drop for Ancestors {
    fn drop(&mut self) {
        let take_above = |ancestors: &Self| ancestors.0.lock().take().and_then(|link| link.above);
        let mut next = take_above(self);
        while let Some(ancestors) = next.and_then(Arc::into_inner) {
            next = take_above(&ancestors);
        }
    }
}

impl fmt::Debug for Ancestors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parent = self.0.lock().as_ref().map(|link| link.parent);
        f.debug_struct("Ancestors").field("parent", &parent).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(agentflow_model)))]
mod tests {
    use super::*;

    fn task(number: u64) -> TaskId {
        TaskId(number)
    }

    fn chain(length: u64) -> Arc<Ancestors> {
        let root = Ancestors::of_child(task(1), None);
        (2..=length).fold(root, |above, number| Ancestors::of_child(task(number), Some(&above)))
    }

    #[test]
    fn ancestors_that_ended_are_unlinked() {
        let chain = chain(5);
        assert_eq!(chain.live(|_| true), [5, 4, 3, 2, 1].map(task));
        assert_eq!(chain.live(|task| task.get() % 2 == 0), [4, 2].map(task));
        assert_eq!(chain.live(|_| true), [4, 2].map(task), "the others are gone for good");
    }

    #[test]
    fn a_long_chain_is_dropped_on_a_small_stack() {
        let drops = || {
            drop(chain(200_000));
            let ended = chain(200_000);
            assert_eq!(ended.live(|_| false), []);
        };
        std::thread::Builder::new().stack_size(64 * 1024).spawn(drops).expect("a thread").join().expect("no overflow");
    }
}

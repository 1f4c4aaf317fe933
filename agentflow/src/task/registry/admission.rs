//! Who gets a place: a spawn is counted in and lined up, or refused, or makes another task give its place away.

use std::{collections::BTreeSet, pin::pin, sync::Arc};

use super::{Phase, Registry, State};
use crate::task::{
    builder::{OnDuplicateKey, SpawnError},
    info::TaskId,
    options::{OnFull, TaskManagerOptions},
    record::{Request, Task, TaskRef},
};

/// So many tasks at least may be on their way out when others have their places, however small the limit.
const MIN_LEAVING: usize = 1_000;

/// Who spawns a task.
#[derive(Clone, Copy, Debug)]
pub(in crate::task) struct Spawner {
    /// The task that spawns a child.
    pub(in crate::task) task: Option<TaskRef>,
    /// Whether it is a run of a graph.
    pub(in crate::task) is_run: bool,
}

/// The tasks that may be dropped for another one, oldest first.
#[derive(Debug, Default)]
pub(super) struct Evictable {
    /// Those that wait for their turn go first.
    waiting: BTreeSet<TaskRef>,
    running: BTreeSet<TaskRef>,
}

impl Evictable {
    /// The next one to go, but none of these.
    fn next(&self, except: &[TaskRef]) -> Option<TaskRef> {
        self.waiting.iter().chain(&self.running).find(|task| !except.contains(task)).copied()
    }

    pub(super) fn remove(&mut self, task: TaskRef) {
        let _ = self.waiting.remove(&task) || self.running.remove(&task);
    }

    /// Its turn has come.
    pub(super) fn begins(&mut self, task: TaskRef) {
        if self.waiting.remove(&task) {
            self.running.insert(task);
        }
    }
}

impl Registry {
    /// Counts the task in and gives it its place, or says why not; then it is as it was.
    ///
    /// [`SpawnError::Full`] may pass: see [`Registry::admit_in_turn`].
    pub(in crate::task) fn admit(&self, task: &mut Arc<Task>, spawner: Spawner) -> Result<(), SpawnError> {
        let asked = {
            let mut state = self.lock();
            if !state.admits(spawner) {
                return Err(SpawnError::Closed);
            }
            let parent = spawner.task.and_then(|spawner| state.get(spawner)).cloned();
            let asked = state.place(task, parent.as_deref(), &self.options)?;
            // Under the lock: none of them may begin because another one ended of it.
            for (other, request) in &asked {
                other.mark(*request);
            }
            asked
        };
        for (other, request) in asked {
            other.ask(request);
        }
        Ok(())
    }

    /// Like [`admit`](Self::admit), but where that finds no room, this waits for it: one after the other.
    pub(in crate::task) async fn admit_in_turn(
        &self,
        task: &mut Arc<Task>,
        spawner: Spawner,
    ) -> Result<(), SpawnError> {
        let in_turn = async {
            // Whoever gives up lets go of it, and the next one looks for itself: no place that got free is forgotten.
            let _first = self.line.lock().await;
            loop {
                // Made before the look: room that gets free between the two is not missed.
                let mut room = pin!(self.room.notified());
                room.as_mut().enable();
                // Its age counts from its spawn, which is now or later.
                task.renew();
                match self.admit(task, spawner) {
                    Err(SpawnError::Full) => room.await,
                    admitted => return admitted,
                }
            }
        };
        let refused = async {
            loop {
                let narrowed = self.narrowed.notified();
                if !self.lock().admits(spawner) {
                    return;
                }
                narrowed.await;
            }
        };
        tokio::select! {
            biased;
            admitted = in_turn => admitted,
            // Wherever it stood in the line.
            () = refused => Err(SpawnError::Closed),
        }
    }

    /// Less may be spawned than before: tells those who wait for room.
    pub(in crate::task) fn narrowed(&self) {
        self.narrowed.notify_waiters();
    }
}

impl State {
    /// Whether the phase lets such a task in.
    fn admits(&self, spawner: Spawner) -> bool {
        match self.phase {
            Phase::Open => true,
            Phase::Draining => spawner.is_run || spawner.task.is_some_and(|task| self.get(task).is_some()),
            Phase::Closed => false,
        }
    }

    /// Counts the task in and gives it its place, or says why not. What is to be asked of others for it is left to the
    /// caller, who holds the lock.
    fn place(
        &mut self,
        task: &mut Arc<Task>,
        parent: Option<&Task>,
        options: &TaskManagerOptions,
    ) -> Result<Vec<(Arc<Task>, Request)>, SpawnError> {
        let Some(new) = Arc::get_mut(task) else {
            // Nobody else has it before it has its place.
            return Err(SpawnError::Closed);
        };
        let key_to_free = match new.spec.extras.as_ref().and_then(|extras| extras.key.as_ref()) {
            Some((key, OnDuplicateKey::Skip)) if self.queue.has_key(key) => return Err(SpawnError::DuplicateKey),
            Some((key, OnDuplicateKey::Replace)) => Some(key),
            _ => None,
        };
        // Without those that ended: a task that spawns its successor for ever would grow the list for ever.
        let ancestors = parent.map(|parent| self.with_ancestors(parent)).unwrap_or_default();
        let replaced = key_to_free.map(|key| self.queue.unreplaced(key)).unwrap_or_default();
        let replaced: Vec<_> = replaced.into_iter().filter_map(|other| self.get(other)).cloned().collect();
        let mut asked = Vec::new();
        if options.max_tasks.is_some_and(|max| self.in_flight() >= max) {
            if !self.may_leave(options) {
                return Err(SpawnError::Full);
            }
            // Those that it replaces make room for it.
            if replaced.iter().all(|other| other.gave_place()) {
                asked.push((self.evict(&ancestors).ok_or(SpawnError::Full)?, Request::Evict));
            }
        }
        if let Some(key) = key_to_free {
            self.queue.replace(key);
        }
        for other in replaced {
            self.evictable.remove(other.at);
            self.leaving += usize::from(other.give_place());
            asked.push((other, Request::Cancel));
        }

        self.last_id += 1;
        new.at = TaskRef { id: TaskId(self.last_id), slot: self.live.vacant_key() };
        if let Some(parent) = parent {
            new.spec.extras.get_or_insert_default().ancestors = ancestors;
            new.origin = new.origin.take().or_else(|| parent.origin.clone());
        }
        let may_run = self.queue.enter(new.place());
        if may_run {
            new.let_run_at_once();
        }
        self.cancel_last += usize::from(new.spec.cancel_last());
        if options.max_tasks.is_some() && options.on_full == OnFull::DropOldest && new.spec.may_be_evicted() {
            let evictable = if may_run { &mut self.evictable.running } else { &mut self.evictable.waiting };
            evictable.insert(new.at);
        }
        self.live.insert(Arc::clone(task));
        Ok(asked)
    }

    /// Gives the place of the oldest task away: of those that wait for their turn, or else of all.
    fn evict(&mut self, except: &[TaskRef]) -> Option<Arc<Task>> {
        let oldest = self.evictable.next(except)?;
        self.evictable.remove(oldest);
        let task = Arc::clone(self.get(oldest)?);
        self.leaving += usize::from(task.give_place());
        Some(task)
    }

    /// Whether one more task may give its place away. Until the runtime has dropped it, it takes up memory: so many may,
    /// and no more.
    fn may_leave(&self, options: &TaskManagerOptions) -> bool {
        options.max_tasks.is_none_or(|max| self.leaving < max.max(MIN_LEAVING))
    }

    /// Whether a spawn finds a place, or can make one.
    pub(super) fn has_room(&self, options: &TaskManagerOptions) -> bool {
        options.max_tasks.is_some_and(|max| {
            self.in_flight() < max || (self.evictable.next(&[]).is_some() && self.may_leave(options))
        })
    }

    /// The tasks that take up a place.
    pub(in crate::task) fn in_flight(&self) -> usize {
        self.live() - self.leaving
    }
}

//! Admission: a spawn is counted and queued, or refused, or another task gives up its slot for it.

use std::{future::pending, pin::pin, sync::Arc};

use super::{
    super::{
        engine::{
            ancestors::Ancestors,
            run_tasks::RunTasks,
            task::{KeySetting, StopRequest, TaskExtras, TaskRecord},
        },
        error::SpawnError,
        id::TaskId,
        options::{OnClose, OnDuplicateKey, OnFull, TaskManagerOptions},
    },
    Registry,
    run_queue::QueueEntry,
    state::{ManagerPhase, State},
};
use crate::sync::guard_waker;

/// The number of tasks that may always have released their slot without having ended, however small `max_tasks` is.
const MIN_LEAVING: usize = 1_000;

/// The origin of a spawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spawner<'a> {
    /// The task that spawns a child.
    pub(crate) task: Option<TaskId>,
    /// The run whose node's manager spawns.
    pub(crate) run: Option<&'a RunTasks>,
}

/// The slots that a spawn may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slots {
    /// A free one, that of a task which it replaces, or that of a task which is evicted for it.
    Any,
    /// That of a task which it replaces: other spawns wait for the others.
    OfReplaced,
}

impl Registry {
    /// Fails if the spawner may not spawn, because the manager is closed or its run has ended.
    pub(crate) fn check_right(&self, spawner: Spawner<'_>) -> Result<(), SpawnError> {
        self.lock().check_right(spawner)
    }

    /// Counts the task and reserves a slot for it, or returns the reason for the refusal and changes nothing.
    ///
    /// [`SpawnError::Full`] may be temporary: see [`admit_when_free`](Registry::admit_when_free).
    pub(crate) fn admit(&self, task: &mut Arc<TaskRecord>, spawner: Spawner<'_>) -> Result<(), SpawnError> {
        self.admit_to(Slots::Any, task, spawner)
    }

    /// Like [`admit`](Self::admit), but returns [`SpawnError::Full`] if the task needs a slot that it may not take.
    fn admit_to(&self, slots: Slots, task: &mut Arc<TaskRecord>, spawner: Spawner<'_>) -> Result<(), SpawnError> {
        let victims = {
            let mut state = self.lock();
            state.check_right(spawner)?;
            let parent = spawner.task.and_then(|spawner| state.get(spawner)).cloned();
            let victims = state.reserve_slot(slots, task, parent.as_deref(), &self.options)?;
            // Mark all victims while holding the lock, so that the end of one of them cannot start another.
            for (victim, request) in &victims {
                victim.mark_stop_requested(*request);
            }
            victims
        };
        for (victim, request) in victims {
            victim.request_stop(request);
        }
        Ok(())
    }

    /// Like [`admit`](Self::admit), but waits for a free slot where there is none. Waiting spawns get slots in the
    /// order of their first polls. A spawn that needs no free slot, or is refused whatever is free, doesn't wait.
    pub(crate) async fn admit_when_free(
        &self,
        task: &mut Arc<TaskRecord>,
        spawner: Spawner<'_>,
    ) -> Result<(), SpawnError> {
        let admitted = async {
            // A spawn that is given up releases this lock. The next one then looks for a slot itself, so a notification
            // that the first one had received is not lost.
            let _first = match self.spawn_queue.try_lock() {
                Ok(first) => first,
                Err(_) => match self.admit_to(Slots::OfReplaced, task, spawner) {
                    Err(SpawnError::Full) => guard_waker(self.spawn_queue.lock()).await,
                    admitted => return admitted,
                },
            };
            loop {
                // The futures are enabled before the attempt, so that a slot that becomes free between is not missed.
                let mut slot_freed = pin!(self.slot_freed.notified());
                slot_freed.as_mut().enable();
                // The task is spawned now or later, and its age counts from then.
                task.reset_age(self.now());
                match self.admit(task, spawner) {
                    Err(SpawnError::Full) => guard_waker(slot_freed).await,
                    admitted => return admitted,
                }
            }
        };
        let refused = async {
            loop {
                let phase_changed = self.phase_changed.notified();
                let run_ended = async {
                    match spawner.run {
                        Some(run) => run.ended().await,
                        None => pending().await,
                    }
                };
                self.lock().check_right(spawner)?;
                tokio::select! {
                    () = guard_waker(phase_changed) => {}
                    () = run_ended => {}
                }
            }
        };
        tokio::select! {
            biased;
            admitted = admitted => admitted,
            // A close refuses all waiting spawns at once, not only the first in the queue.
            refused = refused => refused,
        }
    }

    /// Wakes the waiting spawns, because the manager accepts fewer tasks from now on.
    pub(super) fn notify_phase_changed(&self) {
        self.phase_changed.notify_waiters();
    }
}

impl State {
    /// Checks that the spawner has the right to spawn. The right lasts as long as the run or the task, not as long as
    /// the handle: a node's manager spawns while its run lives, and a task's children are accepted while it lives.
    fn check_right(&self, spawner: Spawner<'_>) -> Result<(), SpawnError> {
        if self.phase == ManagerPhase::Closed {
            return Err(SpawnError::Closed);
        }
        if spawner.task.is_some_and(|task| self.get(task).is_some()) {
            return Ok(());
        }
        match spawner.run {
            Some(run) if run.is_live() => Ok(()),
            Some(_) => Err(SpawnError::RunEnded),
            None if self.phase == ManagerPhase::Open => Ok(()),
            None => Err(SpawnError::Closed),
        }
    }

    /// Counts the task and reserves a slot for it, or returns the reason for the refusal. Returns the tasks that are to
    /// be stopped for it, which the caller marks while it still holds the lock.
    fn reserve_slot(
        &mut self,
        slots: Slots,
        task: &mut Arc<TaskRecord>,
        parent: Option<&TaskRecord>,
        options: &TaskManagerOptions,
    ) -> Result<Vec<(Arc<TaskRecord>, StopRequest)>, SpawnError> {
        let Some(new) = Arc::get_mut(task) else {
            // Unreachable: a record is shared only after it has its slot.
            return Err(SpawnError::Closed);
        };
        let replaced_key = match &new.spec.extras().key {
            Some(KeySetting { key, on_duplicate: OnDuplicateKey::Skip, .. }) if self.queue.has_key(key) => {
                return Err(SpawnError::DuplicateKey);
            }
            Some(KeySetting { key, on_duplicate: OnDuplicateKey::Replace, .. }) => Some(key),
            _ => None,
        };
        let replaced = replaced_key.map(|key| self.queue.unreplaced(key)).unwrap_or_default();
        let replaced: Vec<_> = replaced.into_iter().filter_map(|other| self.get(other)).cloned().collect();
        // A replaced task that still has its slot leaves it to the new one; otherwise another task is evicted.
        let needs_slot = replaced.iter().all(|other| other.slot_released());
        if slots == Slots::OfReplaced && options.max_tasks.is_some() && needs_slot {
            return Err(SpawnError::Full);
        }
        let mut victims = Vec::new();
        if options.max_tasks.is_some_and(|max| self.in_flight() >= max) {
            if !self.may_release_slot(options) {
                return Err(SpawnError::Full);
            }
            if needs_slot {
                let spawners = parent.map(|parent| self.current_and_ancestors(parent.id)).unwrap_or_default();
                victims.push((self.evict(&spawners).ok_or(SpawnError::Full)?, StopRequest::Evict));
            }
        }
        if let Some(key) = replaced_key {
            self.queue.mark_replaced(key);
        }
        self.last_id += 1;
        let id = TaskId(self.last_id);
        let replaced_by: Option<Arc<str>> = (!replaced.is_empty()).then(|| format!("{} #{id}", new.spec.name).into());
        for other in replaced {
            if let (Some(setting), Some(by)) = (&other.spec.extras().key, &replaced_by) {
                // The cell is not set yet, because a task is replaced only once.
                let _ = setting.replaced_by.set(Arc::clone(by));
            }
            self.evictable.remove(other.id);
            self.leaving += usize::from(other.release_slot());
            victims.push((other, StopRequest::Cancel));
        }

        new.id = id;
        if let Some(parent) = parent {
            let ancestors = Ancestors::of_child(parent.id, parent.spec.extras().ancestors.as_ref());
            new.spec.extras.get_or_insert_default().ancestors = Some(ancestors);
            new.origin = new.origin.take().or_else(|| parent.origin.clone());
        }
        let may_run = match self.delay_of(new) {
            None => self.queue.enter(QueueEntry::of(new)),
            Some(on_close) => {
                new.begin_delay();
                if self.phase != ManagerPhase::Open && on_close == OnClose::Drop {
                    new.mark_stop_requested(StopRequest::Cancel);
                }
                self.delayed += 1;
                self.queue.enter_delayed(QueueEntry::of(new));
                false
            }
        };
        if may_run {
            new.permit_at_once();
        }
        self.awaiting_thread += usize::from(new.awaits_thread());
        self.cancel_last += usize::from(new.spec.extras().cancel_last);
        if options.max_tasks.is_some() && options.on_full == OnFull::DropOldest && new.spec.is_evictable() {
            self.evictable.insert(new.id, may_run);
        }
        self.live.insert(Arc::clone(task));
        Ok(victims)
    }

    /// Returns the effect of a close on a new task if it is delayed. While the manager drains, the delays of those that
    /// run at a close are over at once.
    fn delay_of(&self, new: &TaskRecord) -> Option<OnClose> {
        let TaskExtras { delay, on_close, .. } = new.spec.extras();
        let is_over = self.phase != ManagerPhase::Open && *on_close == OnClose::Run;
        (delay.is_some() && !is_over).then_some(*on_close)
    }

    /// Releases the slot of the oldest evictable task, a queued one if there is one, and returns that task.
    fn evict(&mut self, except: &[TaskId]) -> Option<Arc<TaskRecord>> {
        let oldest = self.evictable.next(except)?;
        self.evictable.remove(oldest);
        let task = Arc::clone(self.get(oldest)?);
        self.leaving += usize::from(task.release_slot());
        Some(task)
    }

    /// Returns whether one more task may release its slot before it ends. Such a task takes up memory until the runtime
    /// has dropped it, so their number is limited.
    fn may_release_slot(&self, options: &TaskManagerOptions) -> bool {
        options.max_tasks.is_none_or(|max| self.leaving < max.max(MIN_LEAVING))
    }

    /// Returns whether `max_tasks` is set and a spawn would find a slot, or could evict a task.
    pub(super) fn has_free_slot(&self, options: &TaskManagerOptions) -> bool {
        options.max_tasks.is_some_and(|max| {
            self.in_flight() < max || (self.evictable.next(&[]).is_some() && self.may_release_slot(options))
        })
    }
}

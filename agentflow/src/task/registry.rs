//! [`Registry`]: the one place that knows which tasks live, and how the others ended.
//!
//! One mutex holds the phase, the live tasks and the counters, so that a spawn is either counted or refused, and the
//! numbers agree at any moment. Nothing of the user's and nothing of tokio's runs while it is held.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use slab::Slab;
use tokio::{
    runtime::Handle,
    sync::{Notify, futures::Notified},
    time::Instant,
};

use super::{
    builder::SpawnError,
    close::Closing,
    context::Current,
    info::{TaskEnd, TaskId, TaskInfo, TaskOrigin, TaskStats},
    manager::TaskManagerOptions,
    record::{End, Request, Spec, Task, TaskRef},
};

#[derive(Debug)]
pub(super) struct Registry {
    state: Mutex<State>,
    /// Told at the ends that somebody waits for, and when a close is hastened.
    changed: Notify,
    pub(super) runtime: Option<Handle>,
    pub(super) options: TaskManagerOptions,
}

/// What may still be spawned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Everything.
    Open,
    /// What belongs to work that is under way: the children of live tasks, and the tasks of live runs.
    Draining,
    /// Nothing.
    Closed,
}

/// By what right a handle spawns.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lineage {
    /// It keeps the manager alive.
    Owner,
    /// It belongs to a run of a graph.
    Run,
    /// It belongs to a task.
    Task(TaskRef),
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) phase: Phase,
    last_id: u64,
    live: Slab<Arc<Task>>,
    /// `spawned` and `active` stay zero here: they follow from the rest.
    ended: TaskStats,
    history: VecDeque<Arc<Task>>,
    pub(super) closing: Option<Closing>,
    waiting: Waiting,
}

/// Who waits, so that an end wakes nobody who would only find that there are more to come.
#[derive(Debug, Default)]
struct Waiting {
    count: usize,
    /// The largest number of live tasks at which somebody wants to be woken.
    at: usize,
}

/// Somebody waits for as long as this lives.
pub(super) struct WaitGuard<'a>(&'a Registry);

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        let waiting = &mut self.0.lock().waiting;
        waiting.count -= 1;
        if waiting.count == 0 {
            waiting.at = 0;
        }
    }
}

impl Registry {
    pub(super) fn new(options: TaskManagerOptions) -> Self {
        Self {
            state: Mutex::new(State {
                phase: Phase::Open,
                last_id: 0,
                live: Slab::new(),
                ended: TaskStats::default(),
                history: VecDeque::new(),
                closing: None,
                waiting: Waiting::default(),
            }),
            changed: Notify::new(),
            runtime: Handle::try_current().ok(),
            options,
        }
    }

    /// No user code runs under the lock, so a poisoned one still guards a whole state.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn runtime(&self) -> Option<Handle> {
        self.runtime.clone().or_else(|| Handle::try_current().ok())
    }

    pub(super) fn reject(&self, why: SpawnError) -> SpawnError {
        self.lock().ended.rejected += 1;
        why
    }

    /// Counts the task in, or refuses it.
    pub(super) fn admit(
        self: &Arc<Self>,
        spec: Spec,
        lineage: Lineage,
        origin: Option<Arc<TaskOrigin>>,
    ) -> Result<Arc<Task>, SpawnError> {
        let spawner = match lineage {
            Lineage::Task(task) => Some(task),
            Lineage::Owner | Lineage::Run => Current::task_of(self),
        };
        // Made before the lock is taken, and only placed under it.
        let mut task = Arc::new(Task::new(spec, origin));

        let mut state = self.lock();
        let parent = spawner.and_then(|spawner| state.get(spawner));
        let admitted = match state.phase {
            Phase::Open => true,
            Phase::Draining => parent.is_some() || matches!(lineage, Lineage::Run),
            Phase::Closed => false,
        };
        if !admitted {
            state.ended.rejected += 1;
            return Err(SpawnError::Closed);
        }
        let id = TaskId(state.last_id + 1);
        if let Some(new) = Arc::get_mut(&mut task) {
            new.at = TaskRef { slot: state.live.vacant_key(), id };
            if let Some(parent) = parent {
                // Without those that ended: a task that spawns its successor for ever would grow the list for ever.
                new.ancestors = state.with_ancestors(parent);
                new.origin = new.origin.take().or_else(|| parent.origin.clone());
            }
        }
        state.last_id = id.0;
        state.live.insert(Arc::clone(&task));
        drop(state);
        if let Some(origin) = &task.origin {
            origin.started(&task.spec.name, task.at.id);
        }
        Ok(task)
    }

    /// Counts the task out and tells whoever waits.
    pub(super) fn ended(&self, task: &Task, end: End) {
        let outcome = end.outcome;
        task.set_end(end);
        let mut forgotten = None;
        let mut state = self.lock();
        state.ended.count(outcome);
        if let Some(task) = state.live.try_remove(task.at.slot) {
            if let Some(closing) = &mut state.closing {
                closing.record(&task);
            }
            if self.options.history == 0 {
                forgotten = Some(task);
            } else {
                if state.history.len() >= self.options.history {
                    forgotten = state.history.pop_front();
                }
                state.history.push_back(task);
            }
        }
        let awaited = state.waiting.count > 0 && state.live() <= state.waiting.at;
        drop(state);
        drop(forgotten);
        if let Some(origin) = &task.origin {
            origin.ended(&task.spec.name, task.at.id, outcome);
        }
        if awaited {
            self.notify();
        }
    }

    /// To be held while waiting for no more than `at` live tasks.
    pub(super) fn waiting(&self, at: usize) -> WaitGuard<'_> {
        let waiting = &mut self.lock().waiting;
        waiting.count += 1;
        waiting.at = waiting.at.max(at);
        WaitGuard(self)
    }

    /// Resolves at the next change after this call, whenever it is first polled.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    pub(super) fn notify(&self) {
        self.changed.notify_waiters();
    }

    /// Waits for the change, but not beyond the deadline; false if that passed first.
    ///
    /// Works on any executor if the manager was made within a runtime. Without any runtime there is no timer, and
    /// the deadline counts as passed.
    pub(super) async fn changed_before(&self, changed: Notified<'_>, deadline: Option<Instant>) -> bool {
        let Some(deadline) = deadline else {
            changed.await;
            return true;
        };
        if deadline <= Instant::now() {
            return false;
        }
        let Some(runtime) = self.runtime() else {
            return false;
        };
        let sleep = {
            let _entered = runtime.enter();
            tokio::time::sleep_until(deadline)
        };
        tokio::select! {
            biased;
            () = changed => true,
            () = sleep => false,
        }
    }

    /// Waits until only the tasks in `except` live, but not beyond the deadline; says whether it came to that.
    pub(super) async fn wait_for_others(&self, except: &[TaskRef], deadline: Option<Instant>) -> bool {
        self.wait_until(deadline, except.len(), |state| state.live_except(except) == 0).await
    }

    /// Waits until `done` holds, but not beyond the deadline; says whether it does. Looks when no more than `at`
    /// tasks live.
    pub(super) async fn wait_until(
        &self,
        deadline: Option<Instant>,
        at: usize,
        mut done: impl FnMut(&State) -> bool,
    ) -> bool {
        let _waiting = self.waiting(at);
        loop {
            // Made before the check: an end between the two is not missed.
            let changed = self.changed();
            if done(&self.lock()) {
                return true;
            }
            if !self.changed_before(changed, deadline).await {
                return done(&self.lock());
            }
        }
    }

    /// The last owner is gone: nothing may be spawned, and what runs is cancelled.
    pub(super) fn abandon(&self) {
        let orphans: Vec<_> = {
            let mut state = self.lock();
            state.phase = Phase::Closed;
            // Whoever was asked already has been answered for, by a close or by hand.
            state.tasks().filter(|task| task.request() == Request::None).cloned().collect()
        };
        if orphans.is_empty() {
            return;
        }
        super::log::abandoned(&orphans);
        for task in orphans {
            task.ask(Request::Cancel);
        }
    }
}

impl State {
    pub(super) fn get(&self, task: TaskRef) -> Option<&Arc<Task>> {
        self.live.get(task.slot).filter(|live| live.at == task)
    }

    /// In no particular order.
    pub(super) fn tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.live.iter().map(|(_, task)| task)
    }

    pub(super) fn live(&self) -> usize {
        self.live.len()
    }

    fn with_ancestors(&self, task: &Task) -> Box<[TaskRef]> {
        let ancestors = task.ancestors.iter().copied().filter(|ancestor| self.get(*ancestor).is_some());
        std::iter::once(task.at).chain(ancestors).collect()
    }

    /// The live tasks that wait for whoever calls from within `task`: itself, and those that spawned it.
    pub(super) fn lineage(&self, task: TaskRef) -> Box<[TaskRef]> {
        self.get(task).map_or_else(Box::default, |task| self.with_ancestors(task))
    }

    /// How many live tasks there are besides those in `except`.
    pub(super) fn live_except(&self, except: &[TaskRef]) -> usize {
        self.live() - except.iter().filter(|task| self.get(**task).is_some()).count()
    }

    pub(super) fn tasks_except<'a>(&'a self, except: &'a [TaskRef]) -> impl Iterator<Item = &'a Arc<Task>> {
        self.tasks().filter(|task| !except.contains(&task.at))
    }

    /// Oldest first.
    pub(super) fn infos(&self, except: &[TaskRef]) -> Vec<TaskInfo> {
        let now = Instant::now();
        let mut infos: Vec<_> = self.tasks_except(except).map(|task| TaskInfo::new(task, now)).collect();
        infos.sort_unstable_by_key(TaskInfo::id);
        infos
    }

    pub(super) fn recent(&self) -> Vec<TaskEnd> {
        self.history.iter().filter_map(TaskEnd::of).collect()
    }

    pub(super) fn stats(&self) -> TaskStats {
        let active = self.live() as u64;
        let ended: u64 = self.ended.outcomes().iter().map(|(_, count)| count).sum();
        TaskStats { spawned: active + ended, active, ..self.ended }
    }
}

/// `None` if the bound is further off than the clock can tell: that is no bound.
pub(super) fn deadline(bound: Option<Duration>) -> Option<Instant> {
    bound.and_then(|bound| Instant::now().checked_add(bound))
}

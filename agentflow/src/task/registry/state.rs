//! [`State`]: the data that the registry's mutex guards.

use std::{borrow::Cow, collections::HashSet, sync::Arc, time::Duration};

use slab::Slab;
use tokio::time::Instant;

use super::{
    super::{
        engine::task::{TaskRecord, TaskRef},
        info::FinishedTask,
        options::TaskManagerOptions,
        outcome::TaskOutcome,
        stats::{OutcomeCounts, TaskStats},
    },
    eviction::Evictable,
    history::History,
    run_queue::{QueueEntry, RunQueue},
    watchers::EventBuffer,
};

/// The live tasks of a manager, its history, and its counters.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) phase: ManagerPhase,
    pub(super) last_id: u64,
    pub(super) live: Slab<Arc<TaskRecord>>,
    pub(super) queue: RunQueue,
    /// The tasks that may be dropped for another one; empty unless the options ask for that.
    pub(super) evictable: Evictable,
    /// The number of live tasks that have released their slot.
    pub(super) leaving: usize,
    /// The number of live tasks that are cancelled last.
    pub(super) cancel_last: usize,
    /// The number of blocking tasks that may run, and wait for a thread.
    pub(super) awaiting_thread: usize,
    pub(super) outcomes: OutcomeCounts,
    pub(super) retries: u64,
    pub(super) rejected: u64,
    pub(super) history: History,
    pub(super) closing: Option<Closing>,
    /// The task in which the last owner of the manager was dropped.
    pub(super) last_owner_dropped_in: Option<TaskRef>,
    pub(super) waiters: Waiters,
    /// The events for the watchers, if there were any when the last event was emitted.
    pub(super) events: Option<Arc<EventBuffer>>,
    /// The sequence number of the next event when there is no buffer.
    pub(super) event_sequence: u64,
}

/// The phase of a manager, which determines the tasks that it accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ManagerPhase {
    /// The manager accepts every task.
    Open,
    /// The manager accepts the children of live tasks, and the tasks of live runs.
    Draining,
    /// The manager accepts no task.
    Closed,
}

/// The limits of names that no task had: most likely, they are misspelt.
#[derive(Debug)]
pub(crate) struct UnusedLimits {
    pub(crate) names: Vec<Cow<'static, str>>,
    /// The names of the tasks that live, or are in the history.
    pub(crate) known: HashSet<Cow<'static, str>>,
}

/// The progress of a close, shared by all its callers.
#[derive(Debug)]
pub(super) struct Closing {
    pub(super) began: Instant,
    /// The outcomes up to the moment when closing began.
    pub(super) before: OutcomeCounts,
    /// The end of draining: the earliest deadline of all callers.
    pub(super) deadline: Option<Instant>,
    /// The end of the grace period of each [`ShutdownWave`].
    pub(super) grace_over: [Option<Instant>; 2],
    pub(super) unfinished: Vec<FinishedTask>,
    pub(super) elapsed: Option<Duration>,
}

/// One of the two groups of tasks that a close cancels one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ShutdownWave {
    /// The tasks that are cancelled when the bound is over.
    First,
    /// The tasks that are [cancelled last](crate::task::TaskBuilder::cancel_last): when those of the first wave have
    /// ended, or have used up their grace period.
    Last,
}

/// The callers that wait for tasks to end, so that an end that none of them waits for wakes none of them.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    pub(super) count: usize,
    /// The largest number of live tasks at which a waiter needs to be woken.
    pub(super) wake_at: usize,
}

impl ShutdownWave {
    pub(super) fn of(task: &TaskRecord) -> Self {
        if task.spec.extras().cancel_last { Self::Last } else { Self::First }
    }
}

impl Closing {
    /// Records a task that ended while the manager closes.
    pub(super) fn record(&mut self, task: &Arc<TaskRecord>) {
        if task.is_unfinished() {
            self.unfinished.extend(FinishedTask::of(task).filter(|end| {
                // A task that ended by itself within its grace period is not unfinished.
                matches!(end.outcome(), TaskOutcome::Cancelled | TaskOutcome::Aborted)
            }));
        }
    }
}

impl State {
    pub(super) fn new(options: &TaskManagerOptions) -> Self {
        Self {
            phase: ManagerPhase::Open,
            last_id: 0,
            live: Slab::new(),
            queue: RunQueue::new(options.max_running, &options.max_running_named),
            evictable: Evictable::default(),
            leaving: 0,
            cancel_last: 0,
            awaiting_thread: 0,
            outcomes: OutcomeCounts::default(),
            retries: 0,
            rejected: 0,
            history: History::new(options.history),
            closing: None,
            last_owner_dropped_in: None,
            waiters: Waiters::default(),
            events: None,
            event_sequence: 1,
        }
    }

    /// Removes a task that has ended; returns it, and the tasks that may run now.
    pub(super) fn remove(&mut self, at: TaskRef) -> Option<(Arc<TaskRecord>, Vec<Arc<TaskRecord>>)> {
        let task = self.live.try_remove(at.slot)?;
        self.cancel_last -= usize::from(task.spec.extras().cancel_last);
        self.awaiting_thread -= usize::from(task.awaits_thread());
        self.leaving -= usize::from(task.slot_released());
        self.evictable.remove(task.at);
        let next = self.queue.leave(QueueEntry::of(&task), task.may_run());
        let next: Vec<_> = next.into_iter().filter_map(|next| self.get(next)).cloned().collect();
        for task in &next {
            self.evictable.begins(task.at);
            task.permit_after_queue();
            self.awaiting_thread += usize::from(task.awaits_thread());
        }
        Some((task, next))
    }

    /// Returns the limits that were set for names of which there was no task, each once, and never if there was no task
    /// at all.
    pub(super) fn take_unused_limits(&mut self) -> Option<UnusedLimits> {
        let names = if self.last_id > 0 { self.queue.take_unused_names() } else { Vec::new() };
        let known = self.history.names().chain(self.tasks().map(|task| &task.spec.name));
        (!names.is_empty()).then(|| UnusedLimits { names, known: known.cloned().collect() })
    }

    /// Returns whether no task lives and none can be spawned any more.
    pub(super) fn is_over(&self) -> bool {
        self.phase == ManagerPhase::Closed && self.live() == 0
    }

    /// Returns the number of live tasks that are cancelled last, besides those in `except`.
    pub(crate) fn cancel_last_except(&self, except: &[TaskRef]) -> usize {
        let excepted = |task: &&TaskRef| self.get(**task).is_some_and(|task| task.spec.extras().cancel_last);
        self.cancel_last - except.iter().filter(excepted).count()
    }

    pub(crate) fn get(&self, task: TaskRef) -> Option<&Arc<TaskRecord>> {
        self.live.get(task.slot).filter(|live| live.at == task)
    }

    /// Returns the live tasks, in no particular order.
    pub(super) fn tasks(&self) -> impl Iterator<Item = &Arc<TaskRecord>> {
        self.live.iter().map(|(_, task)| task)
    }

    pub(crate) fn live(&self) -> usize {
        self.live.len()
    }

    /// Returns the number of live tasks that occupy a slot.
    pub(crate) fn in_flight(&self) -> usize {
        self.live() - self.leaving
    }

    /// Returns a task and those of its ancestors that live.
    pub(super) fn with_ancestors(&self, task: &TaskRecord) -> Vec<TaskRef> {
        let ancestors = task.spec.extras().ancestors.iter().copied();
        std::iter::once(task.at).chain(ancestors.filter(|ancestor| self.get(*ancestor).is_some())).collect()
    }

    /// Returns the live tasks that wait for a caller within `task`: the task itself, and its ancestors.
    pub(crate) fn current_and_ancestors(&self, task: TaskRef) -> Vec<TaskRef> {
        self.get(task).map_or_else(Vec::new, |task| self.with_ancestors(task))
    }

    /// Returns the number of live tasks besides those in `except`.
    pub(super) fn live_except(&self, except: &[TaskRef]) -> usize {
        self.live() - except.iter().filter(|task| self.get(**task).is_some()).count()
    }

    pub(super) fn tasks_except<'a>(&'a self, except: &'a [TaskRef]) -> impl Iterator<Item = &'a Arc<TaskRecord>> {
        self.tasks().filter(|task| !except.contains(&task.at))
    }

    pub(crate) fn recently_finished(&self) -> Vec<FinishedTask> {
        self.history.tasks()
    }

    pub(crate) fn stats(&self) -> TaskStats {
        let active = self.live() as u64;
        TaskStats {
            spawned: active + self.outcomes.total(),
            active,
            queued: (self.queue.waiting() + self.awaiting_thread) as u64,
            outcomes: self.outcomes,
            retries: self.retries,
            rejected: self.rejected,
        }
    }
}

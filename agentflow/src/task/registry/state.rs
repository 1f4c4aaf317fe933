//! [`State`]: the data that the registry's mutex guards.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    super::{
        engine::task::{StopRequest, TaskRecord},
        event::TaskEvent,
        filter::Selection,
        id::TaskId,
        info::FinishedTask,
        options::{OnClose, TaskManagerOptions},
        outcome::TaskOutcome,
        stats::{OutcomeCounts, TaskStats},
    },
    event_buffer::{Delivery, EventBuffer},
    eviction::Evictable,
    history::History,
    live::{LiveTasks, Selected},
    run_queue::{QueueEntry, RunQueue},
};

/// The live tasks of a manager, its history, and its counters.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) phase: ManagerPhase,
    pub(super) last_id: u64,
    pub(super) live: LiveTasks,
    pub(super) queue: RunQueue,
    /// The tasks that may be dropped for another one; empty unless the options ask for that.
    pub(super) evictable: Evictable,
    /// The number of live tasks that have released their slot.
    pub(super) leaving: usize,
    /// The number of live tasks that are cancelled last.
    pub(super) cancel_last: usize,
    /// The number of live tasks that wait for their delay to end.
    pub(super) delayed: usize,
    /// The number of blocking tasks that may run, and wait for a thread.
    pub(super) awaiting_thread: usize,
    pub(super) outcomes: OutcomeCounts,
    pub(super) retries: u64,
    pub(super) rejected: u64,
    pub(super) history: History,
    pub(super) closing: Option<Closing>,
    /// The task in which the last owner of the manager was dropped.
    pub(super) last_owner_dropped_in: Option<TaskId>,
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
pub(super) struct UnusedLimits {
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
            live: LiveTasks::default(),
            queue: RunQueue::new(options.max_running, &options.max_running_named),
            evictable: Evictable::default(),
            leaving: 0,
            cancel_last: 0,
            delayed: 0,
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
    pub(super) fn remove(&mut self, id: TaskId) -> Option<(Arc<TaskRecord>, Vec<Arc<TaskRecord>>)> {
        let task = self.live.remove(id)?;
        if let Some(ancestors) = &task.spec.extras().ancestors {
            ancestors.task_ended(|task| self.get(task).is_some());
        }
        self.cancel_last -= usize::from(task.spec.extras().cancel_last);
        self.awaiting_thread -= usize::from(task.awaits_thread());
        self.delayed -= usize::from(task.is_delayed());
        self.leaving -= usize::from(task.slot_released());
        self.evictable.remove(task.id);
        let next = self.queue.leave(QueueEntry::of(&task), task.may_run());
        let next: Vec<_> = next.into_iter().filter_map(|next| self.get(next)).cloned().collect();
        for task in &next {
            self.permit_after_queue(task);
        }
        Some((task, next))
    }

    fn permit_after_queue(&mut self, task: &TaskRecord) {
        self.evictable.begins(task.id);
        task.permit_after_queue();
        self.awaiting_thread += usize::from(task.awaits_thread());
    }

    /// Ends the delay of a live task, which may run now or is queued, unless it is over or the task is to stop.
    pub(super) fn end_delay(&mut self, task: &TaskRecord, now: Instant) {
        if task.stop_request() != StopRequest::None || !task.is_delayed() {
            return;
        }
        task.end_delay(now);
        self.delayed -= 1;
        if self.queue.end_delay(QueueEntry::of(task)) {
            self.permit_after_queue(task);
        }
    }

    /// Ends all delays because the manager drains, oldest task first. Returns the tasks that were delayed, which the
    /// caller wakes or cancels outside the lock.
    pub(super) fn end_all_delays(&mut self, now: Instant) -> Vec<Arc<TaskRecord>> {
        if self.delayed == 0 {
            return Vec::new();
        }
        let delayed: Vec<_> = self.tasks().filter(|task| task.is_delayed()).cloned().collect();
        for task in &delayed {
            match task.spec.extras().on_close {
                OnClose::Run => self.end_delay(task, now),
                OnClose::Drop => task.mark_stop_requested(StopRequest::Cancel),
            }
        }
        delayed
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
    pub(crate) fn cancel_last_except(&self, except: &[TaskId]) -> usize {
        let excepted = |task: &&TaskId| self.get(**task).is_some_and(|task| task.spec.extras().cancel_last);
        self.cancel_last - except.iter().filter(excepted).count()
    }

    pub(crate) fn get(&self, task: TaskId) -> Option<&Arc<TaskRecord>> {
        self.live.get(task)
    }

    /// Returns the live tasks, oldest first.
    pub(super) fn tasks(&self) -> impl Iterator<Item = &Arc<TaskRecord>> {
        self.live.iter()
    }

    /// Returns the selected live tasks, oldest first.
    pub(super) fn select<'a>(&'a mut self, selection: &'a Selection) -> Selected<'a> {
        self.index_for(selection);
        self.selected(selection)
    }

    /// Builds the index that this selection needs, if it is not there yet.
    pub(super) fn index_for(&mut self, selection: &Selection) {
        self.live.index_for(selection);
    }

    /// Returns the selected live tasks, oldest first, without building an index for them.
    pub(super) fn selected<'a>(&'a self, selection: &'a Selection) -> Selected<'a> {
        match selection {
            Selection::Keyed(key) => Box::new(self.queue.with_key(key).into_iter().filter_map(|task| self.get(task))),
            selection => self.live.select(selection),
        }
    }

    pub(crate) fn live(&self) -> usize {
        self.live.len()
    }

    /// Returns the number of live tasks that occupy a slot.
    pub(crate) fn in_flight(&self) -> usize {
        self.live() - self.leaving
    }

    /// Returns the live tasks that wait for a caller within `task`, oldest first: its ancestors, and the task itself.
    pub(crate) fn current_and_ancestors(&self, task: TaskId) -> Vec<TaskId> {
        let Some(task) = self.get(task) else {
            return Vec::new();
        };
        let ancestors = task.spec.extras().ancestors.as_ref();
        let mut tasks = ancestors.map_or_else(Vec::new, |ancestors| ancestors.live(|task| self.get(task).is_some()));
        tasks.reverse();
        tasks.push(task.id);
        tasks
    }

    /// Returns the number of live tasks besides those in `except`.
    pub(super) fn live_except(&self, except: &[TaskId]) -> usize {
        self.live() - except.iter().filter(|task| self.get(**task).is_some()).count()
    }

    /// Returns how many live tasks are queued behind a key that one of the tasks in `except` holds: they can't begin before
    /// that one has ended.
    pub(super) fn queued_behind(&self, except: &[TaskId]) -> usize {
        let behind = |task: &TaskId| {
            let (holder, queued) = self.queue.holder(self.get(*task)?.spec.scoped_key()?)?;
            (holder == *task).then_some(queued)
        };
        except.iter().filter_map(behind).sum()
    }

    /// Returns the selected tasks that end without the callers in `except`, oldest first: neither one of these nor queued
    /// behind a key of theirs, nor a task that waits for the events of the others.
    pub(super) fn awaited<'a>(&'a self, selection: &'a Selection, except: &'a [TaskId]) -> Selected<'a> {
        let watching = self.watching();
        let is_behind = |task: &TaskRecord| {
            let holder = task.spec.scoped_key().and_then(|key| self.queue.holder(key));
            holder.is_some_and(|(holder, _)| holder != task.id && except.binary_search(&holder).is_ok())
        };
        Box::new(
            self.selected(selection)
                .filter(move |task| is_beside(task, except) && !is_behind(task) && !watching.contains(&task.id)),
        )
    }

    /// Returns the number of all [`awaited`](Self::awaited) tasks.
    pub(super) fn count_awaited(&self, except: &[TaskId]) -> usize {
        let watching = self.watching().into_iter().filter(|task| except.binary_search(task).is_err()).count();
        self.live_except(except) - self.queued_behind(except) - watching
    }

    /// Returns the live tasks besides those in `except`, which is sorted.
    pub(super) fn tasks_except<'a>(&'a self, except: &'a [TaskId]) -> impl Iterator<Item = &'a Arc<TaskRecord>> {
        self.tasks().filter(|task| is_beside(task, except))
    }

    pub(crate) fn recently_finished(&self) -> Vec<FinishedTask> {
        self.history.tasks()
    }

    pub(crate) fn stats(&self) -> TaskStats {
        let active = self.live() as u64;
        TaskStats {
            spawned: active + self.outcomes.total(),
            active,
            delayed: self.delayed as u64,
            queued: (self.queue.waiting() + self.awaiting_thread) as u64,
            outcomes: self.outcomes,
            retries: self.retries,
            rejected: self.rejected,
        }
    }

    /// Adds an event for the watchers, if there are any.
    pub(super) fn publish(&mut self, event: impl FnOnce() -> Option<TaskEvent>) -> Delivery {
        match &self.events {
            Some(events) if events.has_readers() => event().map(|event| events.push(event)).unwrap_or_default(),
            _ => Delivery::default(),
        }
    }

    /// Ends the watchers' streams if no task lives and none can be spawned any more.
    pub(super) fn end_events_if_over(&mut self) -> Delivery {
        if self.is_over() { self.end_events() } else { Delivery::default() }
    }

    /// Ends the watchers' streams, after the events that there are.
    pub(super) fn end_events(&mut self) -> Delivery {
        let Some(events) = self.events.take() else {
            return Delivery::default();
        };
        self.event_sequence = events.next_sequence();
        events.close()
    }

    /// Returns the live tasks that wait for the next event of their own manager, and so for other tasks.
    pub(super) fn watching(&self) -> BTreeSet<TaskId> {
        let mut watching = self.events.as_ref().map(|events| events.waiting_tasks()).unwrap_or_default();
        watching.retain(|task| self.get(*task).is_some());
        watching
    }
}

/// Returns whether a task is none of those in `except`, which is sorted.
pub(super) fn is_beside(task: &TaskRecord, except: &[TaskId]) -> bool {
    except.binary_search(&task.id).is_err()
}

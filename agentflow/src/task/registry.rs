//! [`Registry`]: the one place that knows which tasks live, and how the others ended.
//!
//! One mutex holds the phase, the live tasks and the counters, so that a spawn is either counted or refused, and the
//! numbers agree at any moment. Nothing of the user's and nothing of tokio's runs while it is held.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError},
    time::Duration,
};

use slab::Slab;
use tokio::{sync::broadcast, time::Instant};

use super::{
    builder::SpawnError,
    close::Closing,
    events::TaskEvent,
    info::{FinishedTask, TaskInfo, TaskProgress, TaskStats},
    log,
    metrics::{Change, Metrics},
    options::TaskManagerOptions,
    outcome::TaskError,
    queue::Queue,
    record::{End, Request, Task, TaskRef},
    sync::{AtomicBool, Handle, Mutex, MutexGuard, Notify},
    wait::mark,
};
use crate::error::AttemptTimedOut;

mod admission;
mod waiting;
mod watching;

use admission::Evictable;
pub(super) use admission::Spawner;
use waiting::Waiting;
pub(super) use waiting::deadline;

#[derive(Debug)]
pub(super) struct Registry {
    state: Mutex<State>,
    /// Told at the ends that somebody waits for, and when a close is hastened.
    changed: Notify,
    /// Told of each place that gets free.
    room: Notify,
    /// Held by the one of the waiting spawns that has the next place; the others wait for it in their order.
    line: tokio::sync::Mutex<()>,
    /// Told when less may be spawned than before.
    narrowed: Notify,
    /// Whether there is anybody to tell of events.
    is_watched: AtomicBool,
    metrics: Metrics,
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

#[derive(Debug)]
pub(super) struct State {
    pub(super) phase: Phase,
    last_id: u64,
    live: Slab<Arc<Task>>,
    queue: Queue,
    /// The tasks that may be dropped for another one, kept only where that is asked for.
    evictable: Evictable,
    /// Live tasks that gave their place to another one, and are on their way out.
    leaving: usize,
    /// Live tasks that are cancelled last.
    cancel_last: usize,
    /// `spawned`, `active` and `queued` stay zero here: they follow from the rest.
    ended: TaskStats,
    history: VecDeque<Arc<Task>>,
    pub(super) closing: Option<Closing>,
    waiting: Waiting,
    events: Option<broadcast::Sender<TaskEvent>>,
}

impl Registry {
    pub(super) fn new(options: TaskManagerOptions) -> Self {
        Self {
            state: Mutex::new(State {
                phase: Phase::Open,
                last_id: 0,
                live: Slab::new(),
                queue: Queue::new(options.max_running, &options.max_running_named),
                evictable: Evictable::default(),
                leaving: 0,
                cancel_last: 0,
                ended: TaskStats::default(),
                history: VecDeque::new(),
                closing: None,
                waiting: Waiting::default(),
                events: None,
            }),
            changed: Notify::new(),
            room: Notify::new(),
            line: tokio::sync::Mutex::new(()),
            narrowed: Notify::new(),
            is_watched: AtomicBool::new(false),
            metrics: Metrics::default(),
            runtime: Handle::try_current().ok(),
            options,
        }
    }

    /// No user code runs under the lock, so a poisoned one still guards a whole state.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts and logs a spawn that comes to nothing.
    pub(super) fn reject(&self, name: &str, why: SpawnError) -> SpawnError {
        self.lock().ended.rejected += 1;
        log::rejected(name, why);
        self.metrics.record(name, Change::Rejected(why));
        why
    }

    /// Tells those who want to know of a task that was admitted.
    pub(super) fn spawned(&self, task: &Arc<Task>) {
        if let Some(origin) = &task.origin {
            origin.started(&task.spec.name, task.at.id);
        }
        if let Some(tasks) = task.kept_by() {
            tasks.adopt(task);
        }
        self.emit(|| TaskEvent::Spawned(TaskInfo::new(task, Instant::now())));
        self.metrics.record(&task.spec.name, Change::Spawned);
    }

    /// The task's turn has come, and it begins.
    pub(super) fn started(&self, task: &Arc<Task>) {
        task.begin();
        if task.spec.has_idle_timeout() {
            task.sign(None);
        }
        self.emit(|| TaskEvent::Started(TaskInfo::new(task, Instant::now())));
        if cfg!(feature = "metrics") {
            self.metrics.record(&task.spec.name, Change::Started { waited: task.spawned.elapsed() });
        }
    }

    /// An attempt failed, and there will be another one.
    pub(super) fn attempt_failed(&self, task: &Arc<Task>, attempt: u32, error: &TaskError, retry_in: Duration) {
        let error = match error {
            // It was not the last attempt yet, and the task has not timed out.
            TaskError::TimedOut { after, .. } => AttemptTimedOut { after: *after }.to_string().into(),
            error => error.text().unwrap_or_default(),
        };
        if task.spec.has_idle_timeout() {
            // It can't give any while it pauses.
            let now = Instant::now();
            task.sign_at(now.checked_add(retry_in).unwrap_or(now), None);
        }
        log::attempt_failed(task, attempt, &error, retry_in);
        self.emit(|| {
            let task = TaskInfo::new(task, Instant::now());
            TaskEvent::AttemptFailed { task, attempt, error: Arc::clone(&error), retry_in }
        });
    }

    /// Another attempt begins; gives its number.
    pub(super) fn retried(&self, task: &Task) -> u32 {
        self.lock().ended.retries += 1;
        self.metrics.record(&task.spec.name, Change::Retried);
        if task.spec.has_idle_timeout() {
            task.sign(None);
        }
        task.begin_attempt()
    }

    /// The task told how far it is.
    pub(super) fn progressed(&self, task: &Arc<Task>, progress: Arc<TaskProgress>) {
        self.emit(|| TaskEvent::Progress(TaskInfo::new(task, Instant::now()).with_progress(progress)));
    }

    /// Counts the task out and tells whoever waits.
    pub(super) fn ended(&self, task: &Arc<Task>, end: End) {
        let End { outcome, age, .. } = end;
        task.set_end(end);
        let mut forgotten = None;
        let mut state = self.lock();
        let (live, next) = state.take_out(task.at).unzip();
        state.ended.count(outcome);
        if let Some(closing) = &mut state.closing {
            closing.record(task);
        }
        if self.options.history > 0 {
            if state.history.len() >= self.options.history {
                forgotten = state.history.pop_front();
            }
            state.history.extend(live);
        }
        let awaited = state.waiting.count > 0 && state.live() <= state.waiting.at;
        let has_room = state.has_room(&self.options);
        // Taken with the task: whoever counts out the last one ends the stream, which must not be before this end is told.
        let events = if state.is_over() { state.events.take() } else { state.events.clone() };
        drop(state);

        drop(forgotten);
        for task in next.into_iter().flatten() {
            task.wake();
        }
        if let Some(origin) = &task.origin {
            origin.ended(&task.spec.name, task.at.id, outcome);
        }
        if let Some(tasks) = task.kept_by() {
            tasks.let_go(task);
        }
        if let Some(events) = events
            && let Some(end) = FinishedTask::of(task)
        {
            // The last watcher may have gone since.
            let _ = events.send(TaskEvent::Ended(end));
        }
        self.metrics.record(&task.spec.name, Change::Ended { outcome, age });
        if awaited {
            self.notify();
        }
        if has_room {
            self.room.notify_one();
        }
    }

    /// The live tasks for which this holds, oldest first. The lock is held only to find them.
    pub(super) fn infos(&self, which: impl Fn(&Task) -> bool) -> Vec<TaskInfo> {
        let tasks = self.lock().tasks().filter(|task| which(task)).cloned().collect();
        infos(tasks)
    }

    /// Nothing may be spawned any more: tells those who wait for room, and those who watch if nothing is left.
    pub(super) fn closed(&self) {
        let events = {
            let mut state = self.lock();
            state.is_over().then(|| state.events.take()).flatten()
        };
        drop(events);
        self.narrowed();
    }

    /// The last owner is gone: nothing may be spawned, and what runs is cancelled.
    pub(super) fn abandon(&self) {
        let orphans: Vec<_> = {
            let mut state = self.lock();
            state.phase = Phase::Closed;
            // Whoever was asked already has been answered for, by a close or by hand.
            let orphans: Vec<_> = state.tasks().filter(|task| task.request() == Request::None).cloned().collect();
            mark(&orphans, Request::Cancel);
            orphans
        };
        self.closed();
        if orphans.is_empty() {
            return;
        }
        log::abandoned(&orphans);
        for task in orphans {
            task.ask(Request::Cancel);
        }
    }
}

impl State {
    /// Takes out the task at this place, which has ended; gives it, and those whose turn has come.
    fn take_out(&mut self, at: TaskRef) -> Option<(Arc<Task>, Vec<Arc<Task>>)> {
        let task = self.live.try_remove(at.slot)?;
        self.cancel_last -= usize::from(task.spec.cancel_last());
        self.leaving -= usize::from(task.gave_place());
        self.evictable.remove(task.at);
        let next = self.queue.leave(task.place(), task.may_run());
        let next: Vec<_> = next.into_iter().filter_map(|next| self.get(next)).cloned().collect();
        for task in &next {
            self.evictable.begins(task.at);
            task.let_run();
        }
        Some((task, next))
    }

    /// Nothing lives, and nothing will.
    fn is_over(&self) -> bool {
        self.phase == Phase::Closed && self.live() == 0
    }

    /// How many live tasks are cancelled last, besides those in `except`.
    pub(super) fn must_finish_except(&self, except: &[TaskRef]) -> usize {
        self.cancel_last - except.iter().filter(|task| self.get(**task).is_some_and(|t| t.spec.cancel_last())).count()
    }

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
        let ancestors = task.spec.ancestors().iter().copied().filter(|ancestor| self.get(*ancestor).is_some());
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

    pub(super) fn recently_finished(&self) -> Vec<FinishedTask> {
        self.history.iter().filter_map(FinishedTask::of).collect()
    }

    pub(super) fn stats(&self) -> TaskStats {
        let active = self.live() as u64;
        let ended: u64 = self.ended.outcomes().iter().map(|(_, count)| count).sum();
        TaskStats { spawned: active + ended, active, queued: self.queue.waiting() as u64, ..self.ended }
    }
}

/// Of these tasks, oldest first.
pub(super) fn infos(mut tasks: Vec<Arc<Task>>) -> Vec<TaskInfo> {
    tasks.sort_unstable_by_key(|task| task.at);
    let now = Instant::now();
    tasks.iter().map(|task| TaskInfo::new(task, now)).collect()
}

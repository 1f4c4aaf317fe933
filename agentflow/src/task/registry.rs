//! [`Registry`]: the one place that knows which tasks live, and how the others ended.
//!
//! One mutex holds the phase, the live tasks and the counters, so that a spawn is either counted or refused, and the
//! numbers agree at any moment. Nothing of the user's and nothing of tokio's runs while it is held.

use std::{
    collections::{BTreeSet, VecDeque},
    panic::catch_unwind,
    pin::pin,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use slab::Slab;
use tokio::{sync::broadcast, time::Instant};

use super::{
    builder::{SpawnError, WhenBusy},
    close::Closing,
    events::TaskEvent,
    info::{TaskEnd, TaskId, TaskInfo, TaskProgress, TaskStats},
    log,
    metrics::{Change, Metrics},
    options::{TaskManagerOptions, WhenFull},
    outcome::TaskError,
    queue::Queue,
    record::{End, Request, Task, TaskRef},
    sync::{AtomicBool, Handle, Mutex, MutexGuard, Notified, Notify, Sleep, sleep_until},
    wait::mark,
};
use crate::error::AttemptTimedOut;

/// So many tasks at least may be on their way out when others have their places, however small the limit.
const MIN_LEAVING: usize = 1_000;

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

/// Who spawns a task.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spawner {
    /// The task that spawns a child.
    pub(super) task: Option<TaskRef>,
    /// Whether it is a run of a graph.
    pub(super) is_run: bool,
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
    must_finish: usize,
    /// `spawned`, `active` and `queued` stay zero here: they follow from the rest.
    ended: TaskStats,
    history: VecDeque<Arc<Task>>,
    pub(super) closing: Option<Closing>,
    waiting: Waiting,
    events: Option<broadcast::Sender<TaskEvent>>,
}

/// The tasks that may be dropped for another one, oldest first.
#[derive(Debug, Default)]
struct Evictable {
    /// Those that wait for their turn go first.
    waiting: BTreeSet<TaskRef>,
    running: BTreeSet<TaskRef>,
}

impl Evictable {
    /// The next one to go, but none of these.
    fn next(&self, except: &[TaskRef]) -> Option<TaskRef> {
        self.waiting.iter().chain(&self.running).find(|task| !except.contains(task)).copied()
    }

    fn remove(&mut self, task: TaskRef) {
        let _ = self.waiting.remove(&task) || self.running.remove(&task);
    }

    /// Its turn has come.
    fn begins(&mut self, task: TaskRef) {
        if self.waiting.remove(&task) {
            self.running.insert(task);
        }
    }
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
                queue: Queue::new(options.max_running, &options.max_running_named),
                evictable: Evictable::default(),
                leaving: 0,
                must_finish: 0,
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

    /// Counts the task in and gives it its place, or says why not; then it is as it was.
    ///
    /// [`SpawnError::Full`] may pass: see [`Registry::admit_in_turn`].
    pub(super) fn admit(&self, task: &mut Arc<Task>, spawner: Spawner) -> Result<(), SpawnError> {
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

    /// Like [`admit`](Self::admit), but where that finds no room, this waits for it: one after the other.
    pub(super) async fn admit_in_turn(&self, task: &mut Arc<Task>, spawner: Spawner) -> Result<(), SpawnError> {
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

    /// The task's turn has come, and it begins.
    pub(super) fn started(&self, task: &Arc<Task>) {
        task.begin_attempt();
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
        let next = state.take_out(task);
        state.ended.count(outcome);
        if let Some(closing) = &mut state.closing {
            closing.record(task);
        }
        if self.options.history > 0 {
            if state.history.len() >= self.options.history {
                forgotten = state.history.pop_front();
            }
            state.history.push_back(Arc::clone(task));
        }
        let awaited = state.waiting.count > 0 && state.live() <= state.waiting.at;
        let has_room = state.has_room(&self.options);
        // Taken with the task: whoever counts out the last one ends the stream, which must not be before this end is told.
        let events = if state.is_over() { state.events.take() } else { state.events.clone() };
        drop(state);

        drop(forgotten);
        for task in next {
            task.wake();
        }
        if let Some(origin) = &task.origin {
            origin.ended(&task.spec.name, task.at.id, outcome);
        }
        if let Some(tasks) = task.kept_by() {
            tasks.let_go(task);
        }
        if let Some((events, end)) = events.zip(TaskEnd::of(task)) {
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

    /// The events from now on; `None` if there will be none.
    pub(super) fn watch(&self) -> Option<broadcast::Receiver<TaskEvent>> {
        let mut state = self.lock();
        if state.is_over() {
            return None;
        }
        self.is_watched.store(true, Ordering::Release);
        let buffer = self.options.event_buffer;
        Some(state.events.get_or_insert_with(|| broadcast::Sender::new(buffer)).subscribe())
    }

    /// Whether events are kept for anybody.
    #[cfg(test)]
    pub(super) fn is_watched(&self) -> bool {
        self.is_watched.load(Ordering::Acquire) && self.lock().events.is_some()
    }

    /// Tells whoever watches. Nobody is waited for.
    fn emit(&self, event: impl FnOnce() -> TaskEvent) {
        if !self.is_watched.load(Ordering::Acquire) {
            return;
        }
        let (events, unwatched) = {
            let mut state = self.lock();
            let is_watched = state.events.as_ref().is_some_and(|events| events.receiver_count() > 0);
            self.is_watched.store(is_watched, Ordering::Release);
            if is_watched { (state.events.clone(), None) } else { (None, state.events.take()) }
        };
        drop(unwatched);
        if let Some(events) = events {
            // The last watcher may have gone since.
            let _ = events.send(event());
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
    /// Works on any executor if the manager was made within a runtime, and by the clock of the runtime that it is called
    /// in if it is called in one: that of the tasks stands still when they block its threads. Without any runtime there is
    /// no timer, and the deadline counts as passed.
    pub(super) async fn changed_before(&self, changed: Notified<'_>, deadline: Option<Instant>) -> bool {
        let Some(deadline) = deadline else {
            changed.await;
            return true;
        };
        if deadline <= Instant::now() {
            return false;
        }
        let Some(sleep) = self.timer(deadline) else {
            return false;
        };
        tokio::select! {
            biased;
            () = changed => true,
            () = sleep => false,
        }
    }

    /// A timer of the runtime here, which may go on where all threads of the tasks' runtime are blocked; or else of
    /// theirs. A runtime without a timer panics when it is asked for one.
    fn timer(&self, deadline: Instant) -> Option<Sleep> {
        let runtimes = [Handle::try_current().ok(), self.runtime.clone()];
        runtimes.into_iter().flatten().find_map(|runtime| {
            let _entered = runtime.enter();
            catch_unwind(|| sleep_until(deadline)).ok()
        })
    }

    /// The live tasks for which this holds, oldest first. The lock is held only to find them.
    pub(super) fn infos(&self, which: impl Fn(&Task) -> bool) -> Vec<TaskInfo> {
        let tasks = self.lock().tasks().filter(|task| which(task)).cloned().collect();
        infos(tasks)
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

    /// Nothing may be spawned any more: tells those who wait for room, and those who watch if nothing is left.
    pub(super) fn closed(&self) {
        let events = {
            let mut state = self.lock();
            state.is_over().then(|| state.events.take()).flatten()
        };
        drop(events);
        self.narrowed();
    }

    /// Less may be spawned than before: tells those who wait for room.
    pub(super) fn narrowed(&self) {
        self.narrowed.notify_waiters();
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
        let key = new.spec.extras.as_ref().and_then(|extras| extras.key.as_ref());
        let when_busy = key.map(|(_, when_busy)| *when_busy);
        if when_busy == Some(WhenBusy::Skip) && self.queue.has_key(new.spec.key()) {
            return Err(SpawnError::Busy);
        }
        // Without those that ended: a task that spawns its successor for ever would grow the list for ever.
        let ancestors = parent.map(|parent| self.with_ancestors(parent)).unwrap_or_default();
        let key = if when_busy == Some(WhenBusy::Replace) { new.spec.key() } else { None };
        let replaced = self.queue.unreplaced(key);
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
        self.queue.replace(key);
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
        self.must_finish += usize::from(new.spec.must_finish());
        if options.max_tasks.is_some() && options.when_full == WhenFull::DropOldest && new.spec.may_be_evicted() {
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
        task.mark(Request::Evict);
        Some(task)
    }

    /// Whether one more task may give its place away. Until the runtime has dropped it, it takes up memory: so many may,
    /// and no more.
    fn may_leave(&self, options: &TaskManagerOptions) -> bool {
        options.max_tasks.is_none_or(|max| self.leaving < max.max(MIN_LEAVING))
    }

    /// Whether a spawn finds a place, or can make one.
    fn has_room(&self, options: &TaskManagerOptions) -> bool {
        options.max_tasks.is_some_and(|max| {
            self.in_flight() < max || (self.evictable.next(&[]).is_some() && self.may_leave(options))
        })
    }

    /// Takes a task out that has ended; gives those whose turn has come.
    fn take_out(&mut self, task: &Task) -> Vec<Arc<Task>> {
        let Some(task) = self.live.try_remove(task.at.slot) else {
            return Vec::new();
        };
        self.must_finish -= usize::from(task.spec.must_finish());
        self.leaving -= usize::from(task.gave_place());
        self.evictable.remove(task.at);
        let next = self.queue.leave(task.place(), task.may_run());
        let next: Vec<_> = next.into_iter().filter_map(|next| self.get(next)).cloned().collect();
        for task in &next {
            self.evictable.begins(task.at);
            task.let_run();
        }
        next
    }

    /// The tasks that take up a place.
    pub(super) fn in_flight(&self) -> usize {
        self.live() - self.leaving
    }

    /// Nothing lives, and nothing will.
    fn is_over(&self) -> bool {
        self.phase == Phase::Closed && self.live() == 0
    }

    /// How many live tasks are cancelled last, besides those in `except`.
    pub(super) fn must_finish_except(&self, except: &[TaskRef]) -> usize {
        self.must_finish - except.iter().filter(|task| self.get(**task).is_some_and(|t| t.spec.must_finish())).count()
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

    pub(super) fn recent(&self) -> Vec<TaskEnd> {
        self.history.iter().filter_map(TaskEnd::of).collect()
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

/// `None` if the bound is further off than the clock can tell: that is no bound.
pub(super) fn deadline(bound: Option<Duration>) -> Option<Instant> {
    bound.and_then(|bound| Instant::now().checked_add(bound))
}

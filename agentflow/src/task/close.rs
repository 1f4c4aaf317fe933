//! Closing a manager.
//!
//! There is no leader: whoever closes runs the same steps over the shared state, so any of them may be dropped
//! half-way, or be called from within a task, and the others lose nothing.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    info::{FinishedTask, TaskInfo, TaskStats},
    manager::BackgroundTaskManager,
    outcome::TaskOutcome,
    record::{Request, Task, TaskRef},
    registry::{self, Phase, Registry, State},
    wait::{SETTLE, longest_grace, mark},
};

/// What all who close the manager share.
#[derive(Debug)]
pub(super) struct Closing {
    began: Instant,
    /// The counters when it began.
    before: TaskStats,
    /// When draining ends, by the shortest bound that anybody gave.
    deadline: Option<Instant>,
    /// When the tasks that were cancelled are aborted, those of each [`Turn`].
    grace_over: [Option<Instant>; 2],
    unfinished: Vec<FinishedTask>,
    elapsed: Option<Duration>,
}

/// Who is cancelled when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// When the bound is over.
    First,
    /// When the others have ended, or have used up their grace: those that must finish.
    Last,
}

impl Turn {
    fn of(task: &Task) -> Self {
        if task.spec.cancel_last() { Self::Last } else { Self::First }
    }
}

impl Closing {
    /// Called at each end while the manager closes.
    pub(super) fn record(&mut self, task: &Arc<Task>) {
        if task.is_cut_off() {
            self.unfinished.extend(FinishedTask::of(task).filter(|end| {
                // A task that ended by itself within the grace was not cut off.
                matches!(end.outcome(), TaskOutcome::Cancelled | TaskOutcome::Aborted)
            }));
        }
    }
}

impl BackgroundTaskManager {
    /// Lets the tasks finish for as long as `bound`, then cancels what is left, then reports.
    ///
    /// 1. From the call on, only work that is under way may spawn: live tasks their children, and live runs. Other
    ///    spawns get [`SpawnError::Closed`](crate::task::SpawnError::Closed).
    /// 2. When all tasks have ended, or the bound is over, nothing may be spawned any more. `None` is no bound.
    /// 3. What still runs is cancelled; after the [grace](crate::task::TaskManagerOptions::grace_period), or its
    ///    [own](crate::task::TaskBuilder::grace_period), it is aborted.
    /// 4. Then the same is done to the tasks that [must finish](crate::task::TaskBuilder::cancel_last), if there are any.
    ///
    /// It returns at the latest when the bound, the longest grace and a tenth of a second are over, whatever the tasks
    /// do: a task that blocks its thread is reported as still running. Where tasks must finish, their longest grace and
    /// another tenth of a second are added.
    ///
    /// It is told to nobody before the bound is over that the manager closes, so a task that ends only when it is told to
    /// makes the close last as long as that: cancel it before, [by name](Self::cancel_named) or by its handle.
    ///
    /// Any number of callers may close at once, and each gets the whole truth; the shortest bound holds for all, and
    /// stays even if its caller goes away. So `close(Some(Duration::ZERO))` hastens a close that is under way.
    /// Called from inside a task it spares that task and those that spawned it, and reports them as still running.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let tasks = agentflow::BackgroundTaskManager::new();
    /// tasks.create_task(async {}).name("quick").spawn()?;
    /// tasks.create_task(std::future::pending::<()>()).name("stuck").spawn()?;
    /// let report = tasks.close(Some(Duration::from_millis(10))).await;
    /// assert_eq!(report.completed, 1);
    /// assert_eq!(report.unfinished[0].name(), "stuck");
    /// assert!(tasks.create_task(async {}).spawn().is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the waiting, not the closing. Until somebody calls it again, or drops the manager,
    /// nothing more is cancelled.
    pub async fn close(&self, bound: Option<Duration>) -> CloseReport {
        let registry = &*self.registry;
        let here = self.here();
        registry.begin_closing(registry::deadline(bound));

        if !registry.drain_before_deadline(&here).await {
            registry.unfinished(&here, Turn::First).await;
            registry.unfinished(&here, Turn::Last).await;
        }
        registry.report()
    }

    /// Enters the draining phase at once: for a shutdown that waits for something else before it closes.
    pub(crate) fn drain(&self) {
        self.registry.begin_closing(None);
    }
}

impl Registry {
    fn begin_closing(&self, deadline: Option<Instant>) {
        {
            let mut state = self.lock();
            state.phase = state.phase.max(Phase::Draining);
            let before = state.stats();
            let closing = state.closing.get_or_insert_with(|| Closing {
                began: Instant::now(),
                before,
                deadline: None,
                grace_over: [None; 2],
                unfinished: Vec::new(),
                elapsed: None,
            });
            closing.deadline = [closing.deadline, deadline].into_iter().flatten().min();
        }
        // Whoever waits for a later deadline learns of the earlier one.
        self.notify();
        self.narrowed();
    }

    /// Waits until nothing but the tasks in `except` lives, or the deadline has passed; says which. Afterwards
    /// nothing may be spawned.
    async fn drain_before_deadline(&self, except: &[TaskRef]) -> bool {
        let mut in_time = true;
        let _waiting = self.waiting(except.len());
        loop {
            let changed = self.changed();
            let deadline = {
                let mut state = self.lock();
                let drained = state.live_except(except) == 0;
                if drained || !in_time {
                    // Under the lock that found it empty: no task slips in between.
                    state.phase = Phase::Closed;
                    drop(state);
                    self.closed();
                    return drained;
                }
                state.closing.as_ref().and_then(|closing| closing.deadline)
            };
            in_time = self.changed_before(changed, deadline).await;
        }
    }

    /// Cancels what is left of those whose turn it is, waits for them as long as they have grace, and aborts the rest.
    /// Whoever comes second finds nothing that has not been cancelled already, and waits as long as the first.
    async fn unfinished(&self, except: &[TaskRef], turn: Turn) {
        let grace_over = self.cancel(except, turn);
        if self.wait_for_turn(except, turn, grace_over).await {
            return;
        }
        let is_due = |task: &&Arc<Task>| Turn::of(task) == turn;
        let stubborn: Vec<_> = self.lock().tasks_except(except).filter(is_due).cloned().collect();
        for task in stubborn {
            task.ask(Request::Abort);
        }
        let settled = grace_over.and_then(|over| over.checked_add(SETTLE));
        self.wait_for_turn(except, turn, settled).await;
    }

    /// Gives when their grace is over.
    fn cancel(&self, except: &[TaskRef], turn: Turn) -> Option<Instant> {
        let (cut, grace_over) = {
            let mut state = self.lock();
            let is_due = |task: &&Arc<Task>| Turn::of(task) == turn && task.mark_cut_off();
            let cut: Vec<_> = state.tasks_except(except).filter(is_due).cloned().collect();
            mark(&cut, Request::Cancel);
            let grace = longest_grace(&cut, self.options.grace_period);
            let grace_over = state.closing.as_mut().and_then(|closing| {
                let over = &mut closing.grace_over[turn as usize];
                if !cut.is_empty() {
                    *over = registry::deadline(Some(grace));
                }
                *over
            });
            (cut, grace_over)
        };
        for task in cut {
            task.ask(Request::Cancel);
        }
        grace_over
    }

    /// Waits until none of those lives whose turn it is.
    async fn wait_for_turn(&self, except: &[TaskRef], turn: Turn, until: Option<Instant>) -> bool {
        let last = |state: &State| state.must_finish_except(except);
        match turn {
            Turn::First => {
                let at = except.len() + last(&self.lock());
                self.wait_until(until, at, |state| state.live_except(except) == last(state)).await
            }
            // Others may still live that ignored their turn.
            Turn::Last => self.wait_until(until, usize::MAX, |state| last(state) == 0).await,
        }
    }

    fn report(&self) -> CloseReport {
        let mut state = self.lock();
        let now = state.stats();
        let live = state.tasks().cloned().collect();
        let (before, unfinished, elapsed) = match &mut state.closing {
            Some(closing) => {
                let elapsed = *closing.elapsed.get_or_insert_with(|| closing.began.elapsed());
                (closing.before, closing.unfinished.clone(), elapsed)
            }
            // Only reached through `begin_closing`, which fills it.
            None => (now, Vec::new(), Duration::ZERO),
        };
        drop(state);
        CloseReport {
            completed: now.completed - before.completed,
            failed: now.failed - before.failed,
            panicked: now.panicked - before.panicked,
            timed_out: now.timed_out - before.timed_out,
            cancelled: now.cancelled - before.cancelled,
            aborted: now.aborted - before.aborted,
            evicted: now.evicted - before.evicted,
            unfinished,
            still_running: registry::infos(live),
            elapsed,
        }
    }
}

/// What became of the tasks when the manager was [closed](BackgroundTaskManager::close).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CloseReport {
    /// Tasks that completed since closing began.
    pub completed: u64,
    /// Tasks that failed since closing began.
    pub failed: u64,
    /// Tasks that panicked since closing began.
    pub panicked: u64,
    /// Tasks that timed out since closing began.
    pub timed_out: u64,
    /// Tasks that were cancelled since closing began, by whomever.
    pub cancelled: u64,
    /// Tasks that were aborted since closing began, by whomever.
    pub aborted: u64,
    /// Tasks that were dropped since closing began, to make room for others.
    pub evicted: u64,
    /// The tasks that were cancelled or aborted because the bound was over, in the order of their ends.
    pub unfinished: Vec<FinishedTask>,
    /// The tasks that still run: blocking ones, those that block their thread, and those that closed the manager
    /// themselves.
    pub still_running: Vec<TaskInfo>,
    /// How long it took, from the first call until the first report.
    pub elapsed: Duration,
}

impl CloseReport {
    /// Whether every task came to an end by itself: nothing was cut off, and nothing still runs.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.unfinished.is_empty() && self.still_running.is_empty()
    }
}

/// One line for the counts, and one for each task that was cut off or still runs.
impl fmt::Display for CloseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "closed in {:.1?}: {} completed", self.elapsed, self.completed)?;
        for (count, outcome) in [
            (self.failed, TaskOutcome::Failed),
            (self.panicked, TaskOutcome::Panicked),
            (self.timed_out, TaskOutcome::TimedOut),
            (self.cancelled, TaskOutcome::Cancelled),
            (self.aborted, TaskOutcome::Aborted),
            (self.evicted, TaskOutcome::Evicted),
        ] {
            if count > 0 {
                write!(f, ", {count} {outcome}")?;
            }
        }
        for end in &self.unfinished {
            write!(f, "\n  unfinished: {end}")?;
        }
        for task in &self.still_running {
            write!(f, "\n  still running: {task}")?;
        }
        Ok(())
    }
}

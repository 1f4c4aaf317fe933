//! Waiting for tasks, and cancelling them all.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    info::{FinishedTask, TaskId, TaskInfo},
    manager::BackgroundTaskManager,
    record::{Request, Task},
    registry::{self, State},
};
use crate::run_id::RunId;

/// How long a wait goes on after the grace: tasks that ignored their cancellation are dropped when the grace is over,
/// and this is the time for that to happen.
pub(super) const SETTLE: Duration = Duration::from_millis(100);

impl BackgroundTaskManager {
    /// Waits until no task is left, those spawned meanwhile included; with a bound, at most that long.
    ///
    /// It never cancels anything: what still runs when the bound is over goes on, and the error says what it is.
    /// Called from inside a task it waits neither for that task nor for those that spawned it; two tasks that both
    /// wait without a bound do wait for each other. When it returns, what ended was logged and dropped.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let tasks = agentflow::BackgroundTaskManager::new();
    /// tasks.create_task(std::future::pending::<()>()).name("stuck").spawn()?;
    /// let timeout = tasks.wait_for_all(Some(Duration::from_millis(10))).await.unwrap_err();
    /// assert_eq!(timeout.still_running[0].name(), "stuck");
    /// # tasks.close(Some(Duration::ZERO)).await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`WaitTimeout`], when the bound is over before all tasks have ended. Without a bound there is no error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future only ends the waiting.
    pub async fn wait_for_all(&self, bound: Option<Duration>) -> Result<(), WaitTimeout> {
        let deadline = registry::deadline(bound);
        let here = self.here();
        if self.registry.wait_for_others(&here, deadline).await {
            return Ok(());
        }
        let tasks = self.registry.infos(|task| !here.contains(&task.at));
        // The last one may have ended since.
        if tasks.is_empty() { Ok(()) } else { Err(WaitTimeout { still_running: tasks }) }
    }

    /// Cancels all tasks, and returns when they have ended, or when the manager's
    /// [grace](crate::task::TaskManagerOptions::grace_period), or the longest of the tasks' own, and a tenth of a second are over.
    ///
    /// The manager stays open. Tasks spawned after the call are left alone. Called from inside a task it spares that
    /// task and those that spawned it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let tasks = agentflow::BackgroundTaskManager::new();
    /// tasks.create_task(std::future::pending::<()>()).name("stuck").spawn()?;
    /// let report = tasks.cancel_all().await;
    /// assert_eq!(report.ended[0].name(), "stuck");
    /// assert!(report.still_running.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// The tasks are cancelled at the first poll; dropping the future only ends the waiting.
    pub async fn cancel_all(&self) -> CancelReport {
        let here = self.here();
        let mut tasks = self.cancel_those(|task| !here.contains(&task.at));
        tasks.sort_unstable_by_key(|task| task.at.id);
        let grace = longest_grace(&tasks, self.registry.options.grace_period);
        let deadline = registry::deadline(grace.checked_add(SETTLE));
        // Each end is looked at once: what is before `left` has not been seen to end yet.
        let mut left = tasks.len();
        let done = |_: &State| {
            while left > 0 && tasks[left - 1].has_ended() {
                left -= 1;
            }
            left == 0
        };
        self.registry.wait_until(deadline, usize::MAX, done).await;

        let now = Instant::now();
        let mut report = CancelReport::default();
        for task in &tasks {
            match FinishedTask::of(task) {
                Some(end) => report.ended.push(end),
                None => report.still_running.push(TaskInfo::new(task, now)),
            }
        }
        report
    }
}

#[allow(clippy::must_use_candidate, reason = "they are called for what they do")]
impl BackgroundTaskManager {
    /// Cancels the task with this id; says whether it was live. Like [`TaskHandle::cancel`](crate::task::TaskHandle::cancel) it
    /// returns at once.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let tasks = agentflow::BackgroundTaskManager::new();
    /// let id = tasks.create_task(std::future::pending::<()>()).name("poll").spawn()?.id();
    /// assert!(tasks.cancel(id));
    /// tasks.wait_for_all(None).await?;
    /// assert!(!tasks.cancel(id), "it has ended");
    /// # Ok(())
    /// # }
    /// ```
    pub fn cancel(&self, id: TaskId) -> bool {
        !self.cancel_those(|task| task.at.id == id).is_empty()
    }

    /// Cancels the tasks of this name; says how many were live. Returns at once.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let tasks = agentflow::BackgroundTaskManager::new();
    /// for name in ["email", "upload", "email"] {
    ///     tasks.create_task(std::future::pending::<()>()).name(name).spawn()?;
    /// }
    /// assert_eq!(tasks.cancel_named("email"), 2);
    /// # tasks.cancel_all().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn cancel_named(&self, name: &str) -> usize {
        self.cancel_those(|task| task.spec.name == name).len()
    }

    /// Cancels the tasks [of this run](Self::tasks_of_run); says how many were live. Returns at once.
    pub fn cancel_tasks_of_run(&self, run: RunId) -> usize {
        self.cancel_those(|task| task.is_of(run)).len()
    }

    fn cancel_those(&self, which: impl Fn(&Task) -> bool) -> Vec<Arc<Task>> {
        let tasks = {
            let state = self.registry.lock();
            let tasks: Vec<_> = state.tasks().filter(|task| which(task)).cloned().collect();
            mark(&tasks, Request::Cancel);
            tasks
        };
        for task in &tasks {
            task.ask(Request::Cancel);
        }
        tasks
    }
}

/// Notes for all of them what is asked, before any of them is: none may begin because another one ended of it.
pub(super) fn mark(tasks: &[Arc<Task>], request: Request) {
    for task in tasks {
        task.mark(request);
    }
}

/// How long the last of these tasks may take to end when it is cancelled.
pub(super) fn longest_grace(tasks: &[Arc<Task>], default: Duration) -> Duration {
    tasks.iter().map(|task| task.spec.grace(default)).max().unwrap_or_default()
}

/// A bounded wait was over before all tasks were.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WaitTimeout {
    /// The tasks that still ran, oldest first.
    pub still_running: Vec<TaskInfo>,
}

/// `2 background tasks still run: upload #7 (for 1.2s), send #9 (for 0.3s)`
impl fmt::Display for WaitTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.still_running.len() {
            1 => write!(f, "1 background task still runs: ")?,
            count => write!(f, "{count} background tasks still run: ")?,
        }
        write_list(f, &self.still_running)
    }
}

impl std::error::Error for WaitTimeout {}

/// What [`cancel_all`](BackgroundTaskManager::cancel_all) did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CancelReport {
    /// The tasks that ended, oldest first. A task that ended by itself has its own outcome.
    pub ended: Vec<FinishedTask>,
    /// The tasks that still run: blocking ones, and those that block their thread.
    pub still_running: Vec<TaskInfo>,
}

/// `2 ended: send #1 (cancelled after 0.1s), …; 1 still runs: crunch #2 (for 3.0s)`
impl fmt::Display for CancelReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ended", self.ended.len())?;
        if !self.ended.is_empty() {
            f.write_str(": ")?;
            write_list(f, &self.ended)?;
        }
        match self.still_running.len() {
            0 => return Ok(()),
            1 => f.write_str("; 1 still runs: ")?,
            count => write!(f, "; {count} still run: ")?,
        }
        write_list(f, &self.still_running)
    }
}

fn write_list(f: &mut fmt::Formatter<'_>, items: &[impl fmt::Display]) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        let comma = if index > 0 { ", " } else { "" };
        write!(f, "{comma}{item}")?;
    }
    Ok(())
}

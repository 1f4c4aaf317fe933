//! [`BackgroundTaskManager`]: the handle that people hold.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    builder::{self, Retrying, TaskBuilder},
    context::{Current, TaskContext},
    info::{FinishedTask, TaskInfo, TaskOrigin, TaskStats, Watch},
    options::TaskManagerOptions,
    outcome::TaskOutput,
    owner::RunTasks,
    record::{Task, TaskRef},
    registry::{Registry, Spawner},
};
use crate::run_id::RunId;

/// Starts work in the background and answers for it: see the [methods](#implementations).
///
/// Cloning is cheap, and all clones are one manager. When the last of them is dropped without a
/// [`close`](Self::close), its tasks are cancelled and a warning names them. The managers that tasks and nodes are
/// given don't count among these.
///
/// Tasks run on the tokio runtime in which the manager was made, or else on the one in which they are spawned. Its
/// timer must be enabled (`enable_time`) for timeouts and bounds.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tasks = agentflow::BackgroundTaskManager::new();
/// tasks.create_task(async { println!("hello from the background") }).name("greet").spawn()?;
/// assert_eq!(tasks.task_count(), 1);
///
/// tasks.wait_for_all(None).await?;
/// assert_eq!(tasks.stats().completed, 1);
/// # Ok(())
/// # }
/// ```
///
/// # Metrics
///
/// With the feature `metrics` a manager tells the [`metrics`](https://docs.rs/metrics) facade of its tasks. Who collects
/// that is for the application to say, by installing a recorder. Without the feature it costs nothing.
///
/// | metric | kind | labels | of |
/// |---|---|---|---|
/// | `agentflow_tasks_spawned_total` | counter | `name` | tasks that were accepted |
/// | `agentflow_tasks_ended_total` | counter | `name`, [`outcome`](crate::task::TaskOutcome::as_str) | tasks that ended |
/// | `agentflow_tasks_rejected_total` | counter | `name`, [`reason`](crate::task::SpawnError::as_str) | refused spawns |
/// | `agentflow_task_retries_total` | counter | `name` | attempts beyond a task's first |
/// | `agentflow_tasks_in_flight` | gauge | `name` | tasks that have not ended, in the queue or not |
/// | `agentflow_task_duration_seconds` | histogram | `name`, `outcome` | from the spawn to the end |
/// | `agentflow_task_queue_wait_seconds` | histogram | `name` | from the spawn until the task began, if it did |
///
/// Of a task only its name is a label; its id, key, context and errors are for the logs. A manager's first 256 names are
/// labels of their own, and all others are the label `other`: give tasks of one kind one name, and tell them apart by
/// their [context](TaskBuilder::context).
#[derive(Clone)]
pub struct BackgroundTaskManager {
    pub(super) registry: Arc<Registry>,
    holder: Holder,
}

/// Who holds a handle: it says whether the handle keeps the manager alive, and by what right it spawns.
#[derive(Clone)]
enum Holder {
    /// Whoever made the manager. Held only to be dropped last.
    Owner(#[allow(dead_code, reason = "what counts is its destructor")] Arc<Owner>),
    /// A node of a run.
    Run(Arc<TaskOrigin>),
    /// A task: one that held its own manager alive would keep itself going.
    Task(Arc<Task>),
}

struct Owner(Arc<Registry>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl BackgroundTaskManager {
    /// A manager with the default options. Needs no runtime yet.
    #[must_use]
    pub fn new() -> Self {
        Self::with_options(TaskManagerOptions::new())
    }

    /// A manager with these options. Needs no runtime yet.
    #[must_use]
    pub fn with_options(options: TaskManagerOptions) -> Self {
        let registry = Arc::new(Registry::new(options));
        let owner = Arc::new(Owner(Arc::clone(&registry)));
        Self { registry, holder: Holder::Owner(owner) }
    }

    /// The same manager for a node of a run: what it spawns carries both names, and who watches the run is told of it. It
    /// doesn't keep the manager alive.
    pub(crate) fn labelled(
        &self,
        run: RunId,
        node: Arc<str>,
        watch: Option<Arc<dyn Watch>>,
        tasks: Option<Arc<RunTasks>>,
    ) -> Self {
        let origin = Arc::new(TaskOrigin::new(run, node, watch, tasks));
        Self { registry: Arc::clone(&self.registry), holder: Holder::Run(origin) }
    }

    /// The same manager for a task. It doesn't keep the manager alive.
    pub(super) fn within(current: &Current) -> Self {
        Self { registry: Arc::clone(&current.registry), holder: Holder::Task(Arc::clone(&current.task)) }
    }

    /// A task that runs this future, from the moment when it is spawned.
    ///
    /// Cancelling it drops the future where it awaits.
    #[inline]
    pub fn create_task<F>(&self, future: F) -> TaskBuilder<'_, <F::Output as TaskOutput>::Value, F>
    where
        F: Future + Send + 'static,
        F::Output: TaskOutput,
    {
        TaskBuilder::new(self, future, builder::plain())
    }

    /// A task that can end by itself when it is cancelled: `task` gets the [`TaskContext`] and gives the future.
    ///
    /// The closure is called within the task, when that starts.
    #[inline]
    pub fn create_task_with_context<C, F>(&self, task: C) -> TaskBuilder<'_, <F::Output as TaskOutput>::Value, C>
    where
        C: FnOnce(TaskContext) -> F + Send + 'static,
        F: Future + Send + 'static,
        F::Output: TaskOutput,
    {
        TaskBuilder::new(self, task, builder::with_context())
    }

    /// A task that blocks its thread: it runs on the runtime's threads for blocking work, not on those for futures.
    ///
    /// Nothing can end it from outside: a cancelled or timed out one is told through its [`TaskContext`] and goes on
    /// until it returns, and what it returns then is its end. One that had not begun yet doesn't begin.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let tasks = agentflow::BackgroundTaskManager::new();
    /// let sum = tasks
    ///     .create_blocking_task(|task| {
    ///         let numbers = (1..=100).take_while(|_| !task.is_cancelled());
    ///         Ok::<u64, std::io::Error>(numbers.sum())
    ///     })
    ///     .name("sum")
    ///     .spawn()?;
    /// assert_eq!(sum.await?, 5050);
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn create_blocking_task<C, O>(&self, task: C) -> TaskBuilder<'_, O::Value, C>
    where
        C: FnOnce(TaskContext) -> O + Send + 'static,
        O: TaskOutput,
    {
        TaskBuilder::new(self, task, builder::blocking())
    }

    /// A task that is tried again when it fails: `attempt` gets the number of the attempt, from 1, and gives its future.
    ///
    /// After a `Result::Err`, a panic, or an [`attempt_timeout`](TaskBuilder::attempt_timeout) the
    /// [policy](TaskBuilder::retry) says whether and when there is another attempt; the end of the last one is the
    /// task's. The [`timeout`](TaskBuilder::timeout) covers all attempts and the pauses between them. Each failed attempt
    /// that is not the last is a warning in the log.
    ///
    /// The task is not told of its cancellation: it is dropped where it awaits, in an attempt or between two. So the
    /// [`token`](TaskContext::token) of [`TaskContext::current`] is never cancelled in it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use agentflow::RetryPolicy;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let tasks = agentflow::BackgroundTaskManager::new();
    /// let webhook = tasks
    ///     .create_retrying_task(|attempt| async move {
    ///         if attempt < 3 { Err(format!("attempt {attempt}: no answer")) } else { Ok(attempt) }
    ///     })
    ///     .name("webhook")
    ///     .retry(RetryPolicy::new(5).backoff(Duration::from_millis(1)).jitter())
    ///     .attempt_timeout(Duration::from_secs(5))
    ///     .timeout(Duration::from_secs(60))
    ///     .spawn()?;
    /// assert_eq!(webhook.await?, 3);
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn create_retrying_task<M, F>(
        &self,
        attempt: M,
    ) -> TaskBuilder<'_, <F::Output as TaskOutput>::Value, Retrying<M>>
    where
        M: FnMut(u32) -> F + Send + 'static,
        F: Future + Send + 'static,
        F::Output: TaskOutput,
    {
        TaskBuilder::new(self, Retrying::new(attempt), builder::in_attempts())
    }

    /// How many tasks have not ended.
    #[must_use]
    pub fn task_count(&self) -> usize {
        self.registry.lock().live()
    }

    /// The tasks that have not ended, oldest first.
    #[must_use]
    pub fn task_info(&self) -> Vec<TaskInfo> {
        self.registry.infos(|_| true)
    }

    /// The tasks of this run that have not ended, oldest first: those that its nodes spawned, and those that these did.
    ///
    /// ```
    /// use agentflow::{AgentState, BackgroundTaskManager, NodeError, RunConfig, RunId, graph, node};
    ///
    /// #[node]
    /// async fn answer(state: &mut AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
    ///     task_manager.create_task(std::future::pending::<()>()).name("index").spawn()?;
    ///     Ok(())
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let app = graph! { answer -> END };
    /// let run = RunId::new();
    /// app.invoke(AgentState::default(), RunConfig::new().with_run_id(run)).await?;
    ///
    /// let tasks = app.task_manager();
    /// assert_eq!(tasks.tasks_of_run(run)[0].name(), "index");
    /// assert_eq!(tasks.cancel_tasks_of_run(run), 1);
    /// # tasks.wait_for_all(None).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn tasks_of_run(&self, run: RunId) -> Vec<TaskInfo> {
        self.registry.infos(|task| task.is_of(run))
    }

    /// The latest ends, oldest first; how many is an [option](TaskManagerOptions::history).
    #[must_use]
    pub fn recently_finished(&self) -> Vec<FinishedTask> {
        self.registry.lock().recently_finished()
    }

    /// How many tasks there are and were, read at one moment.
    #[must_use]
    pub fn stats(&self) -> TaskStats {
        self.registry.lock().stats()
    }

    /// How long a cancelled task may take to end.
    pub(crate) fn grace(&self) -> Duration {
        self.registry.options.grace_period
    }

    pub(super) fn origin(&self) -> Option<Arc<TaskOrigin>> {
        match &self.holder {
            Holder::Owner(_) => None,
            Holder::Run(origin) => Some(Arc::clone(origin)),
            Holder::Task(task) => task.origin.clone(),
        }
    }

    pub(super) fn spawner(&self) -> Spawner {
        let task = match &self.holder {
            Holder::Task(task) => Some(task.at),
            Holder::Owner(_) | Holder::Run(_) => Current::task_of(&self.registry),
        };
        Spawner { task, is_run: matches!(self.holder, Holder::Run(_)) }
    }

    /// The tasks that would wait for themselves if a wait that is called here waited for them.
    pub(super) fn here(&self) -> Box<[TaskRef]> {
        self.spawner().task.map_or_else(Box::default, |task| self.registry.lock().lineage(task))
    }
}

impl Default for BackgroundTaskManager {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for BackgroundTaskManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (phase, stats) = {
            let state = self.registry.lock();
            (state.phase, state.stats())
        };
        f.debug_struct("BackgroundTaskManager")
            .field("phase", &phase)
            .field("stats", &stats)
            .field("origin", &self.origin())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use futures_core::future::BoxFuture;
    use tokio::time::sleep;

    use super::*;
    use crate::task::SpawnError;

    fn spawn(tasks: &BackgroundTaskManager) -> Result<(), SpawnError> {
        tasks.create_task(pending::<()>()).spawn().map(drop)
    }

    #[tokio::test(start_paused = true)]
    async fn a_nodes_tasks_carry_its_run_and_its_name_and_so_do_their_children() {
        let tasks = BackgroundTaskManager::new();
        let run = RunId::new();
        let node = tasks.labelled(run, "SEND".into(), None, None);
        let parent = |task: TaskContext| async move {
            task.manager().create_task(pending::<()>()).name("child").spawn()?;
            pending::<Result<(), SpawnError>>().await
        };
        node.create_task_with_context(parent).spawn().expect("the manager is open");
        spawn(&tasks).expect("the manager is open");
        sleep(Duration::from_secs(1)).await;
        let infos = tasks.task_info();
        let origins: Vec<_> = infos.iter().map(|info| info.origin().map(|o| (o.run(), o.node()))).collect();
        assert_eq!(origins, [Some((run, "SEND")), None, Some((run, "SEND"))]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_ended_task_left_behind_still_carries_its_origin() {
        let tasks = BackgroundTaskManager::new();
        let run = RunId::new();
        let node = tasks.labelled(run, "SEND".into(), None, None);
        let parent = |task: TaskContext| async { Ok::<_, SpawnError>(task) };
        let ended = node.create_task_with_context(parent).spawn().expect("the manager is open").await;
        spawn(ended.expect("it returned").manager()).expect("the manager is open");
        assert_eq!(tasks.task_info()[0].origin().map(TaskOrigin::run), Some(run));
    }

    #[tokio::test(start_paused = true)]
    async fn while_draining_runs_may_spawn_and_others_may_not() {
        let tasks = BackgroundTaskManager::new();
        let node = tasks.labelled(RunId::new(), "SEND".into(), None, None);
        tasks.drain();
        assert_eq!(spawn(&node), Ok(()));
        assert_eq!(spawn(&tasks), Err(SpawnError::Closed));
        let report = tasks.close(Some(Duration::from_secs(1))).await;
        assert_eq!((report.cancelled, report.elapsed), (1, Duration::from_secs(1)));
        assert_eq!(spawn(&node), Err(SpawnError::Closed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_nodes_manager_does_not_keep_the_manager_alive() {
        let tasks = BackgroundTaskManager::new();
        let node = tasks.labelled(RunId::new(), "SEND".into(), None, None).clone();
        let handle = node.create_task(pending::<()>()).spawn().expect("the manager is open");
        drop(tasks);
        assert_eq!(spawn(&node), Err(SpawnError::Closed));
        assert!(matches!(handle.await, Err(crate::task::TaskError::Cancelled)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_remembers_only_the_ancestors_that_live() {
        fn link(task: TaskContext, left: u32) -> BoxFuture<'static, Result<(), SpawnError>> {
            Box::pin(async move {
                // The one before it has ended by then.
                sleep(Duration::from_secs(1)).await;
                let lineage = task.manager().here();
                assert!(lineage.len() <= 2, "{lineage:?}");
                if left > 0 {
                    task.manager().create_task_with_context(move |task| link(task, left - 1)).spawn()?;
                }
                Ok(())
            })
        }
        let tasks = BackgroundTaskManager::new();
        tasks.create_task_with_context(|task| link(task, 10)).spawn().expect("the manager is open");
        assert!(tasks.wait_for_all(None).await.is_ok());
        assert_eq!(tasks.stats().completed, 11);
    }
}

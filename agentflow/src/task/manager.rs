//! [`BackgroundTaskManager`]: creates, lists, awaits, cancels and closes tasks.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use tokio::{runtime::Handle, time::Instant};

use super::{
    builder::{self, Retrying, TaskBuilder},
    context::TaskContext,
    durable::{DurableSink, DurableSpawner, DurableTaskBuilder, Task},
    engine::{current::CurrentTask, run_tasks::RunTasks, task::TaskRecord},
    event_stream::TaskEventStream,
    filter::{Selection, TaskFilter},
    id::TaskId,
    info::{FinishedTask, TaskInfo},
    observer::TaskObserver,
    options::TaskManagerOptions,
    origin::TaskOrigin,
    output::TaskOutput,
    registry::{ABORT_MARGIN, ManagerPhase, Registry, State, admission::Spawner},
    report::{CancelReport, CloseReport, WaitTimeout},
    stats::TaskStats,
};
use crate::run_id::RunId;

/// Runs work in the background, and keeps a record of it until it has ended: see the [methods](#implementations).
///
/// Cloning is cheap, and all clones are one manager. When the last of them is dropped without a
/// [`close`](Self::close), its tasks are cancelled and a warning names them. The managers that tasks and nodes receive
/// don't count as clones.
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
/// assert_eq!(tasks.stats().outcomes.completed, 1);
/// # Ok(())
/// # }
/// ```
///
/// # Log lines
///
/// A manager logs through [`tracing`](https://docs.rs/tracing), with the target `agentflow::task`. Fields in
/// parentheses are present only where they apply.
///
/// | line | level | fields |
/// |---|---|---|
/// | background task completed | debug | those of an end |
/// | background task blocked its thread until … after its timeout, then completed | warn | those of an end, `overrun` |
/// | background task failed | error | those of an end |
/// | background task panicked | error | those of an end |
/// | background task timed out | warn | those of an end |
/// | background task timed out in its last attempt | warn | those of an end |
/// | background task timed out without a heartbeat | warn | those of an end |
/// | background task timed out in the queue | warn | those of an end |
/// | background task cancelled | debug | those of an end |
/// | background task aborted | debug | those of an end |
/// | background task aborted: it did not end within its grace period when the manager was closed | warn | those of an end |
/// | background task dropped to make room for another one | warn | those of an end |
/// | background task failed, and will be tried again | warn | `name`, `id`, `attempt`, `retry_in`, `error`, (`run`, `node`, `context`, `key`) |
/// | background task rejected | debug | `name`, `reason` |
/// | no background task had the name that `max_running_named` limits | warn | `name`, (`did_you_mean`) |
/// | the task manager was dropped without being closed: … | warn | `count`, `tasks` (the names and ids of the first 20) |
///
/// The fields of an end are `name`, `id`, `age`, [`outcome`](crate::task::TaskOutcome::as_str), and (`run`, `node`,
/// `context`, `error`, `timeout`, [`limit`](crate::task::TimeoutKind::as_str), `attempts` if there was more than one,
/// `key`, `replaced_by` with the name and id of the task that took its key, `overrun` if the task ended by itself after
/// its timeout). `context` is one JSON object of the fields that [`context`](TaskBuilder::context) added.
///
/// Each task runs in a span `agentflow.task` at level info, with the fields `name` and `id`. It has no parent, and
/// follows from the span in which the task was spawned.
///
/// # Metrics
///
/// With the feature `metrics` a manager reports to the [`metrics`](https://docs.rs/metrics) facade; the application
/// installs the recorder. Without the feature the metrics cost nothing.
///
/// | metric | kind | labels | meaning |
/// |---|---|---|---|
/// | `agentflow_tasks_spawned_total` | counter | `name` | tasks that were accepted |
/// | `agentflow_tasks_ended_total` | counter | `name`, [`outcome`](crate::task::TaskOutcome::as_str) | tasks that ended |
/// | `agentflow_tasks_rejected_total` | counter | `name`, [`reason`](crate::task::SpawnError::as_str) | refused spawns |
/// | `agentflow_task_retries_total` | counter | `name` | attempts beyond a task's first |
/// | `agentflow_tasks_in_flight` | gauge | `name` | tasks that have not ended, delayed and queued ones included |
/// | `agentflow_task_duration_seconds` | histogram | `name`, `outcome` | time from the spawn to the end |
/// | `agentflow_task_queue_wait_seconds` | histogram | `name` | time from the spawn, or from the end of its delay, until the task began, if it did |
///
/// A task's name is the only label that identifies it; its id, key, context and errors are for the logs. A manager's
/// first 256 names become labels, and all others share the label `other`: give tasks of one kind one name, and
/// distinguish them by their [context](TaskBuilder::context).
#[derive(Clone)]
pub struct BackgroundTaskManager {
    pub(super) registry: Arc<Registry>,
    role: ManagerRole,
}

/// The role of a manager's holder. It determines if the holder keeps the manager alive, and the origin of its spawns.
#[derive(Clone)]
enum ManagerRole {
    /// The application. The manager closes when the last owner is dropped.
    Owner(#[allow(dead_code, reason = "held for its destructor")] Arc<Owner>),
    /// A node of a run, with the outbox of its attempt if the app has a store.
    Run(Arc<TaskOrigin>, Option<Arc<dyn DurableSink>>),
    /// A task. It isn't an owner: a task that kept its own manager alive would never be cancelled.
    Task(Arc<TaskRecord>),
}

struct Owner(Arc<Registry>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.cancel_orphans();
    }
}

impl BackgroundTaskManager {
    /// Creates a manager with the default options. Needs no runtime yet.
    #[must_use]
    pub fn new() -> Self {
        Self::with_options(TaskManagerOptions::new())
    }

    /// Creates a manager with these options. Needs no runtime yet.
    #[must_use]
    pub fn with_options(options: TaskManagerOptions) -> Self {
        let registry = Arc::new(Registry::new(options));
        let owner = Arc::new(Owner(Arc::clone(&registry)));
        Self { registry, role: ManagerRole::Owner(owner) }
    }

    /// Returns the manager for a node of a run: its spawns carry the run and the node, are reported to `observer` and
    /// `tasks`, and are accepted while the run lives. It doesn't keep the manager alive.
    pub(crate) fn labelled(
        &self,
        run: RunId,
        node: Arc<str>,
        observer: Option<Arc<dyn TaskObserver>>,
        tasks: Arc<RunTasks>,
    ) -> Self {
        let origin = Arc::new(TaskOrigin::new(run, node, observer, tasks));
        Self { registry: Arc::clone(&self.registry), role: ManagerRole::Run(origin, None) }
    }

    /// Sets the outbox for the durable tasks that are spawned through the manager for a node.
    pub(crate) fn with_outbox(mut self, new: Arc<dyn DurableSink>) -> Self {
        if let ManagerRole::Run(_, outbox) = &mut self.role {
            *outbox = Some(new);
        }
        self
    }

    /// Sets the destination of the durable tasks that are spawned through this manager and those made from it. A manager
    /// keeps its first one.
    pub(crate) fn set_durable_sink(&self, sink: Arc<dyn DurableSink>) {
        // The error is the sink itself, which the manager does not take.
        let _ = self.registry.durable.set(sink);
    }

    /// Returns the destination of the durable tasks that are spawned outside of a node's attempt.
    #[inline]
    pub(crate) fn durable_sink(&self) -> Option<&Arc<dyn DurableSink>> {
        self.registry.durable.get()
    }

    /// Returns the manager for a task. It doesn't keep the manager alive.
    pub(super) fn for_task(current: &CurrentTask) -> Self {
        Self { registry: Arc::clone(&current.registry), role: ManagerRole::Task(Arc::clone(&current.task)) }
    }

    /// Returns the task that this is the manager [for](Self::for_task).
    pub(super) fn holder(&self) -> Option<&Arc<TaskRecord>> {
        match &self.role {
            ManagerRole::Task(task) => Some(task),
            ManagerRole::Owner(_) | ManagerRole::Run(..) => None,
        }
    }

    /// Returns the origin that spawns through this manager have.
    pub(super) fn origin(&self) -> Option<Arc<TaskOrigin>> {
        match &self.role {
            ManagerRole::Owner(_) => None,
            ManagerRole::Run(origin, _) => Some(Arc::clone(origin)),
            ManagerRole::Task(task) => task.origin.clone(),
        }
    }

    pub(super) fn spawner(&self) -> Spawner<'_> {
        let task = match &self.role {
            ManagerRole::Task(task) => Some(task.id),
            ManagerRole::Owner(_) | ManagerRole::Run(..) => CurrentTask::of_registry(&self.registry),
        };
        let run = match &self.role {
            ManagerRole::Run(origin, _) => Some(origin.run_tasks()),
            ManagerRole::Owner(_) | ManagerRole::Task(_) => None,
        };
        Spawner { task, run }
    }

    fn durable_spawner(&self) -> DurableSpawner<'_> {
        let sink = match &self.role {
            ManagerRole::Run(_, outbox) => outbox.as_ref(),
            ManagerRole::Owner(_) | ManagerRole::Task(_) => self.durable_sink(),
        };
        DurableSpawner {
            registry: &self.registry,
            spawner: self.spawner(),
            origin: self.origin(),
            sink: sink.map(Arc::clone),
        }
    }

    /// Returns the task that this is called in and its ancestors. A wait in that task must leave them out, because they
    /// cannot end before it.
    fn current_and_ancestors(&self) -> Vec<TaskId> {
        self.spawner().task.map_or_else(Vec::new, |task| self.registry.lock().current_and_ancestors(task))
    }
}

/// Creating tasks.
impl BackgroundTaskManager {
    /// Creates a task that runs this future, from the moment when it is spawned.
    ///
    /// Cancelling the task drops the future where it awaits.
    #[inline]
    pub fn create_task<F>(&self, future: F) -> TaskBuilder<'_, <F::Output as TaskOutput>::Value, F>
    where
        F: Future + Send + 'static,
        F::Output: TaskOutput,
    {
        TaskBuilder::new(self, future, builder::future())
    }

    /// Creates a task that can end by itself when it is cancelled: `task` receives the [`TaskContext`] and returns the
    /// future.
    ///
    /// The closure is called within the task, when that begins.
    #[inline]
    pub fn create_task_with_context<C, F>(&self, task: C) -> TaskBuilder<'_, <F::Output as TaskOutput>::Value, C>
    where
        C: FnOnce(TaskContext) -> F + Send + 'static,
        F: Future + Send + 'static,
        F::Output: TaskOutput,
    {
        TaskBuilder::new(self, task, builder::with_context())
    }

    /// Creates a task that blocks its thread: it runs on the runtime's threads for blocking work, not on those for
    /// futures.
    ///
    /// The task begins when a thread calls the closure. Until then it is [`Queued`](crate::task::TaskState::Queued), and
    /// ends like any queued task when it is cancelled or times out: the closure is dropped at once, and never called. It
    /// counts as running for [`max_running`](TaskManagerOptions::max_running) meanwhile.
    ///
    /// Nothing can end a closure from outside once it runs: when its task is cancelled or times out, it is informed
    /// through its [`TaskContext`] and goes on until it returns, and its result is the outcome. That holds even if the
    /// runtime shuts down meanwhile.
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

    /// Creates a durable task: it is stored with its arguments before it runs, and runs again if the process dies. `T` is a
    /// function with [`#[task]`](macro@crate::task), registered in the graph: `tasks { .. }`.
    ///
    /// The app needs a store. In a node, the task is stored together with the result of the node's attempt: see
    /// [`spawn`](DurableTaskBuilder::spawn).
    #[allow(clippy::needless_pass_by_value, reason = "the arguments belong to the task, whatever becomes of them here")]
    pub fn create_durable_task<T: Task>(&self, args: T::Args) -> DurableTaskBuilder<'_, T> {
        DurableTaskBuilder::new(self.durable_spawner(), &args)
    }

    /// Creates a task that is tried again when it fails: `attempt` receives the number of the attempt, from 1, and
    /// returns its future.
    ///
    /// After a `Result::Err`, a panic, or an [`attempt_timeout`](TaskBuilder::attempt_timeout) the
    /// [policy](TaskBuilder::retry) decides whether and when there is another attempt; the end of the last one is the
    /// task's. The [`timeout`](TaskBuilder::timeout) covers all attempts and the pauses between them. Each failed
    /// attempt that is not the last is a warning in the log.
    ///
    /// The task is not informed of its cancellation: it is dropped where it awaits, in an attempt or between two. So
    /// the [`token`](TaskContext::token) of [`TaskContext::current`] is never cancelled in it.
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
}

/// Listing tasks.
impl BackgroundTaskManager {
    /// Returns the number of tasks that have not ended.
    #[must_use]
    pub fn task_count(&self) -> usize {
        self.registry.lock().live()
    }

    /// Returns the tasks that have not ended, oldest first.
    #[must_use]
    pub fn task_info(&self) -> Vec<TaskInfo> {
        self.registry.infos(&Selection::All)
    }

    /// Returns the tasks of this run that have not ended, oldest first: those that its nodes spawned, and those that
    /// these tasks spawned.
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
        self.registry.infos(&Selection::OfRun(run))
    }

    /// Returns the tasks that ended last, oldest first. An [option](TaskManagerOptions::history) sets how many of each name
    /// are retained; those that did not complete are retained longest.
    #[must_use]
    pub fn recently_finished(&self) -> Vec<FinishedTask> {
        self.registry.lock().recently_finished()
    }

    /// Returns the manager's counters, read at one moment.
    #[must_use]
    pub fn stats(&self) -> TaskStats {
        self.registry.lock().stats()
    }
}

/// Waiting for tasks.
impl BackgroundTaskManager {
    /// Waits until no task is left, those spawned meanwhile included; with a bound, at most that long.
    ///
    /// A wait never cancels anything: tasks that still run when the bound is over go on, and the error lists them.
    /// When it returns, the tasks that ended were logged and dropped.
    ///
    /// It does not wait for tasks that would wait for its end, or for an end that never comes. Called from inside a task,
    /// these are that task, its ancestors, and the tasks that are queued behind a [key](TaskBuilder::key) that one of them
    /// holds. Wherever it is called, they are the tasks that wait for the next of the manager's own
    /// [events](Self::events). Two tasks that both wait without a bound do wait for each other, and so does a task with
    /// one that is queued for a slot of [`max_running`](TaskManagerOptions::max_running).
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
    /// Returns a [`WaitTimeout`] if the bound is over before all tasks have ended. Without a bound there is no error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future only ends the waiting.
    pub async fn wait_for_all(&self, bound: Option<Duration>) -> Result<(), WaitTimeout> {
        self.wait_for(TaskFilter::all(), bound).await
    }

    /// Waits until none of these tasks is left; with a bound, at most that long. They are selected by a name, by a
    /// [`RunId`], by an id, a list of ids or a handle, or by any other [`TaskFilter`]. Those that are spawned meanwhile are
    /// included.
    ///
    /// The rules of [`wait_for_all`](Self::wait_for_all) hold: it never cancels anything, and does not wait for tasks that
    /// would wait for its caller. To wait for the results of tasks as well, use a [`TaskGroup`](crate::task::TaskGroup).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let tasks = agentflow::BackgroundTaskManager::new();
    /// tasks.create_task(std::future::pending::<()>()).name("poll").spawn()?;
    /// tasks.create_task(tokio::time::sleep(Duration::from_secs(1))).name("mail").spawn()?;
    /// tasks.wait_for("mail", Some(Duration::from_secs(5))).await?;
    ///
    /// let timeout = tasks.wait_for("poll", Some(Duration::from_secs(5))).await.unwrap_err();
    /// assert_eq!(timeout.to_string(), "1 background task still runs: poll #1 (for 6.0s)");
    /// # tasks.close(Some(Duration::ZERO)).await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns a [`WaitTimeout`] if the bound is over before these tasks have ended. Without a bound there is no error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future only ends the waiting.
    pub async fn wait_for(&self, tasks: impl Into<TaskFilter>, bound: Option<Duration>) -> Result<(), WaitTimeout> {
        let TaskFilter(selection) = tasks.into();
        let deadline = self.registry.deadline_of_caller(bound);
        let except = self.current_and_ancestors();
        if self.registry.wait_for(&selection, &except, deadline).await {
            return Ok(());
        }
        let still_running = self.registry.awaited(&selection, &except);
        // The last task may have ended between the deadline and this list.
        if still_running.is_empty() { Ok(()) } else { Err(WaitTimeout { still_running }) }
    }

    /// Returns a stream of the events of all tasks from now on.
    ///
    /// A task never waits for a stream's reader: a reader that is more than
    /// [`event_buffer`](TaskManagerOptions::event_buffer) events behind gets [`TaskEvent::Missed`] with the number of
    /// missed events, and goes on with the oldest that is retained. While there is no stream, events cost nothing.
    ///
    /// The events arrive in the order in which they happened. When [`wait_for_all`](Self::wait_for_all) or
    /// [`close`](Self::close) has returned, the stream has the events of all ends.
    ///
    /// [`TaskEvent::Missed`]: crate::task::TaskEvent::Missed
    ///
    /// ```
    /// use agentflow::task::TaskEvent;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let tasks = agentflow::BackgroundTaskManager::new();
    /// let mut events = tasks.events();
    /// tasks
    ///     .create_task_with_context(|task| async move { task.progress(0.5, "half-way") })
    ///     .name("upload")
    ///     .spawn()?;
    /// tasks.close(None).await;
    ///
    /// let mut seen = Vec::new();
    /// while let Some(event) = events.next().await {
    ///     seen.push(match event {
    ///         TaskEvent::Spawned(task) => format!("{} spawned", task.name()),
    ///         TaskEvent::Started(task) => format!("{} started", task.name()),
    ///         TaskEvent::Progress(task) => format!("{}", task.progress().unwrap()),
    ///         TaskEvent::Ended(end) => format!("{} {}", end.name(), end.outcome()),
    ///         other => format!("{other:?}"),
    ///     });
    /// }
    /// assert_eq!(seen, ["upload spawned", "upload started", "50 % half-way", "upload completed"]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn events(&self) -> TaskEventStream {
        TaskEventStream::new(self.registry.subscribe())
    }
}

/// Cancelling tasks.
#[allow(clippy::must_use_candidate, reason = "they are called for their effect")]
impl BackgroundTaskManager {
    /// Cancels the task with this id; returns whether it was live. Like
    /// [`TaskHandle::cancel`](crate::task::TaskHandle::cancel), it doesn't wait for the end.
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
        !self.registry.cancel(&Selection::Ids(vec![id]), &[]).is_empty()
    }

    /// Cancels the tasks of this name; returns how many were live. Doesn't wait for their ends.
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
        self.registry.cancel(&Selection::Named(name.to_owned().into()), &[]).len()
    }

    /// Cancels the tasks with this key, queued ones included; returns how many were live. Doesn't wait for their ends. The
    /// scope is the tasks' name, or the one that [`key_in`](TaskBuilder::key_in) has set.
    ///
    /// ```
    /// use agentflow::task::OnDuplicateKey;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let tasks = agentflow::BackgroundTaskManager::new();
    /// for user in ["user-7", "user-8", "user-7"] {
    ///     let index = tasks.create_task(std::future::pending::<()>()).name("index");
    ///     index.key(user, OnDuplicateKey::Queue).spawn()?;
    /// }
    /// assert_eq!(tasks.cancel_keyed("index", "user-7"), 2);
    /// # tasks.cancel_all().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn cancel_keyed(&self, scope: impl Into<Cow<'static, str>>, key: impl Into<Arc<str>>) -> usize {
        self.registry.cancel(&TaskFilter::keyed(scope, key).0, &[]).len()
    }

    /// Cancels the tasks [of this run](Self::tasks_of_run); returns how many were live. Doesn't wait for their ends.
    pub fn cancel_tasks_of_run(&self, run: RunId) -> usize {
        self.registry.cancel(&Selection::OfRun(run), &[]).len()
    }

    /// Cancels all tasks, and waits until they have ended, or until the longest of their
    /// [grace periods](TaskBuilder::grace_period) and a tenth of a second are over.
    ///
    /// The manager stays open. Tasks spawned after the call are left alone. Called from inside a task, it leaves that
    /// task and its ancestors alone.
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
        let except = self.current_and_ancestors();
        let tasks = self.registry.cancel(&Selection::All, &except);
        let grace = self.registry.longest_grace(&tasks);
        let deadline = self.registry.deadline_of_caller(grace.checked_add(ABORT_MARGIN));
        // The tasks before `left` have not been seen to end yet, so that each end is checked once.
        let mut left = tasks.len();
        let all_ended = |_: &mut State| {
            while left > 0 && tasks[left - 1].has_ended() {
                left -= 1;
            }
            left == 0
        };
        self.registry.wait_until(deadline, usize::MAX, all_ended).await;

        let now = self.registry.now();
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

/// Closing.
impl BackgroundTaskManager {
    /// Waits for the tasks for up to `bound`, then cancels those that are left, and returns a report.
    ///
    /// 1. From the call on, the manager drains: it accepts the children of live tasks and the tasks of live runs, and
    ///    refuses other spawns with [`SpawnError::Closed`](crate::task::SpawnError::Closed).
    /// 2. When all tasks have ended, or the bound is over, the manager is closed and refuses all spawns. `None` is no
    ///    bound.
    /// 3. The tasks that still run are cancelled. When their [grace period](TaskBuilder::grace_period) is over, they
    ///    are aborted.
    /// 4. Then the same is done to the tasks that are [cancelled last](TaskBuilder::cancel_last), if there are any.
    ///
    /// It returns at the latest when the bound, the longest grace period and a tenth of a second are over, whatever the
    /// tasks do: a task that blocks its thread is reported as still running. Where tasks are cancelled last, their
    /// longest grace period and another tenth of a second are added.
    ///
    /// Tasks are not informed of the close before the bound is over. A task that runs until it is cancelled therefore
    /// keeps `close` waiting for the whole bound: cancel it first, [by name](Self::cancel_named) or by its handle.
    ///
    /// Any number of callers may close at once, and all get the complete report. The shortest bound holds for all of
    /// them, even if its caller drops the future, so `close(Some(Duration::ZERO))` hastens a close that is under way.
    /// Called from inside a task, it leaves that task and its ancestors alone, and reports them as still running. Nor does
    /// it wait for the tasks that are queued behind a [key](TaskBuilder::key) of theirs: these run when the key is free,
    /// unless other tasks used up the bound.
    ///
    /// When all tasks that are left wait for the manager's own [events](Self::events), their streams end, and so the tasks
    /// can.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let tasks = agentflow::BackgroundTaskManager::new();
    /// tasks.create_task(async {}).name("quick").spawn()?;
    /// tasks.create_task(std::future::pending::<()>()).name("stuck").spawn()?;
    /// let report = tasks.close(Some(Duration::from_millis(10))).await;
    /// assert_eq!(report.outcomes.completed, 1);
    /// assert_eq!(report.unfinished[0].name(), "stuck");
    /// assert!(tasks.create_task(async {}).spawn().is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the wait, not the closing. Nothing more is cancelled until `close` is called again, or
    /// the last owner of the manager is dropped.
    pub async fn close(&self, bound: Option<Duration>) -> CloseReport {
        let except = self.current_and_ancestors();
        self.registry.begin_closing(self.registry.deadline_of_caller(bound));
        self.registry.close(&except).await
    }

    /// Enters the draining phase at once: for a shutdown that waits for runs before it closes the manager.
    pub(crate) fn drain(&self) {
        self.registry.begin_closing(None);
    }

    /// Waits until no task lives, apart from the one in which it is called and its ancestors, or until the deadline.
    /// Returns whether none lives.
    pub(crate) async fn wait_until_idle(&self, deadline: Option<Instant>) -> bool {
        let except = self.current_and_ancestors();
        self.registry.wait_for(&Selection::All, &except, deadline).await
    }

    /// Returns whether the manager is draining or closed.
    pub(crate) fn is_closing(&self) -> bool {
        self.registry.lock().phase != ManagerPhase::Open
    }

    /// Returns whether both have the same tasks.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.registry, &other.registry)
    }

    /// Returns the task of this manager that runs on this thread.
    pub(crate) fn current_task(&self) -> Option<TaskId> {
        CurrentTask::of_registry(&self.registry)
    }

    /// Returns the runtime in which the manager was made, if it was made in one.
    ///
    /// Under the model checker there is no tokio runtime, so it returns none.
    #[cfg_attr(agentflow_model, expect(clippy::unused_self, reason = "the model has no runtime to return"))]
    pub(crate) fn runtime(&self) -> Option<Handle> {
        #[cfg(not(agentflow_model))]
        return self.registry.runtime.clone();
        #[cfg(agentflow_model)]
        return None;
    }

    /// Returns whether the task has not ended.
    pub(crate) fn is_live(&self, task: TaskId) -> bool {
        self.registry.lock().get(task).is_some()
    }

    /// Returns the grace period of tasks that have none of their own.
    pub(crate) fn grace(&self) -> Duration {
        self.registry.options.grace_period
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
        let node = tasks.labelled(run, "SEND".into(), None, Arc::default());
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
        let node = tasks.labelled(run, "SEND".into(), None, Arc::default());
        let parent = |task: TaskContext| async { Ok::<_, SpawnError>(task) };
        let ended = node.create_task_with_context(parent).spawn().expect("the manager is open").await;
        spawn(ended.expect("it returned").manager()).expect("the manager is open");
        assert_eq!(tasks.task_info()[0].origin().map(TaskOrigin::run), Some(run));
    }

    #[tokio::test(start_paused = true)]
    async fn while_draining_runs_may_spawn_and_others_may_not() {
        let tasks = BackgroundTaskManager::new();
        let node = tasks.labelled(RunId::new(), "SEND".into(), None, Arc::default());
        tasks.drain();
        assert_eq!(spawn(&node), Ok(()));
        assert_eq!(spawn(&tasks), Err(SpawnError::Closed));
        let report = tasks.close(Some(Duration::from_secs(1))).await;
        assert_eq!((report.outcomes.cancelled, report.elapsed), (1, Duration::from_secs(1)));
        assert_eq!(spawn(&node), Err(SpawnError::Closed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_nodes_manager_does_not_keep_the_manager_alive() {
        let tasks = BackgroundTaskManager::new();
        let node = tasks.labelled(RunId::new(), "SEND".into(), None, Arc::default()).clone();
        let handle = node.create_task(pending::<()>()).spawn().expect("the manager is open");
        drop(tasks);
        assert_eq!(spawn(&node), Err(SpawnError::Closed));
        assert!(matches!(handle.await, Err(crate::task::TaskError::Cancelled)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_remembers_only_the_ancestors_that_live() {
        fn link(task: TaskContext, left: u32) -> BoxFuture<'static, Result<(), SpawnError>> {
            Box::pin(async move {
                // Its parent has ended by then.
                sleep(Duration::from_secs(1)).await;
                let ancestors = task.manager().current_and_ancestors();
                assert!(ancestors.len() <= 2, "{ancestors:?}");
                if left > 0 {
                    task.manager().create_task_with_context(move |task| link(task, left - 1)).spawn()?;
                }
                Ok(())
            })
        }
        let tasks = BackgroundTaskManager::new();
        tasks.create_task_with_context(|task| link(task, 10)).spawn().expect("the manager is open");
        assert!(tasks.wait_for_all(None).await.is_ok());
        assert_eq!(tasks.stats().outcomes.completed, 11);
    }
}

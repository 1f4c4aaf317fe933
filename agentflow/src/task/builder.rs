//! [`TaskBuilder`]: the settings of a task before it is spawned.

use std::{
    any::type_name,
    borrow::Cow,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    context::TaskContext,
    engine::{
        current::CurrentTask,
        supervisor::Supervisor,
        sync::Handle,
        task::{KeySetting, TaskExtras, TaskKey, TaskRecord, TaskSpec},
        work::{BlockingWork, ContextWork, FutureWork, Retries, RetryingWork, Work, retrying},
    },
    error::SpawnError,
    handle::TaskHandle,
    manager::BackgroundTaskManager,
    options::{OnClose, OnDuplicateKey, OnRunEnd},
    output::TaskOutput,
    registry::now_in,
};
use crate::RetryPolicy;

/// A task that is not spawned yet: give it a name, a timeout, context for the logs, and [`spawn`](Self::spawn) it.
///
/// ```
/// # use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let tasks = agentflow::BackgroundTaskManager::new();
/// tasks
///     .create_task(async { Ok::<_, std::io::Error>(()) })
///     .name("s3_upload")
///     .timeout(Duration::from_secs(30))
///     .context("user", "ada")
///     .context("attempt", 1)
///     .spawn()?;
/// # tasks.wait_for_all(None).await?;
/// # Ok(())
/// # }
/// ```
///
/// `T` is the value that the task's handle returns, and `W` the future or the closure that the task was created with.
#[must_use = "nothing runs until `.spawn()` is called"]
pub struct TaskBuilder<'m, T, W> {
    manager: &'m BackgroundTaskManager,
    /// In a box, because each method moves the builder: a debug build would keep a copy of the work on the stack for each.
    work: Box<W>,
    vtable: WorkVtable<T, W>,
    name: Option<Cow<'static, str>>,
    timeout: Option<Duration>,
    context: Vec<(Cow<'static, str>, Value)>,
    extras: Option<Box<TaskExtras>>,
}

/// The functions of a `W`, taken where its kind is known.
///
/// They are function pointers, so that `spawn` itself has no bounds: a type that can't be a task is one error, where
/// the task is created, and not a second one at `.spawn()`.
pub(super) struct WorkVtable<T, W> {
    launch: Launch<T, W>,
    type_name: fn() -> &'static str,
    has_token: bool,
    is_blocking: bool,
}

/// Hands an admitted task to the runtime.
type Launch<T, W> = fn(Box<W>, &Handle, CurrentTask) -> TaskHandle<T>;

/// The size in bytes from which on work stays in its box. Smaller work moves into the runtime's memory of its task, and
/// its box lives for the spawn only.
const LARGE: usize = 4 * 1024;

/// The work of [`create_retrying_task`](BackgroundTaskManager::create_retrying_task): a closure that makes the future
/// of each attempt, and the retry policy.
#[derive(Debug)]
pub struct Retrying<M> {
    make: M,
    retries: Retries,
}

impl<M> Retrying<M> {
    pub(super) fn new(make: M) -> Self {
        let policy = RetryPolicy::new(3).backoff(Duration::from_millis(100)).jitter();
        Self { make, retries: Retries { policy, attempt_timeout: None } }
    }
}

impl<'m, T, W> TaskBuilder<'m, T, W> {
    pub(super) fn new(manager: &'m BackgroundTaskManager, work: W, vtable: WorkVtable<T, W>) -> Self {
        Self { manager, work: Box::new(work), vtable, name: None, timeout: None, context: Vec::new(), extras: None }
    }

    /// Sets the task's name, for logs, reports and metrics. The default is the name of the function that made the
    /// future.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Limits how long the task may take, counted from its spawn, in steps of a millisecond: time in the queue and all
    /// its attempts included. When the time is over, the task is dropped where it awaits, and a warning is logged.
    ///
    /// A task that is done when its time is over is done, even if it noticed late because it blocked its thread: then
    /// a warning reports by how much. With `Duration::ZERO` the task times out without being polled.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Adds a field to the task's log lines and reports; a second value for a key replaces the first.
    pub fn context(mut self, key: impl Into<Cow<'static, str>>, value: impl Into<Value>) -> Self {
        let (key, value) = (key.into(), value.into());
        match self.context.iter_mut().find(|(known, _)| *known == key) {
            Some((_, old)) => *old = value,
            None => self.context.push((key, value)),
        }
        self
    }

    /// Limits how long the task may be queued, counted from its spawn, or from the end of its [delay](Self::delay): then it times out without having begun.
    /// Overrides the manager's [`queue_timeout`](crate::task::TaskManagerOptions::queue_timeout).
    ///
    /// ```
    /// # use std::{future::pending, time::Duration};
    /// use agentflow::{BackgroundTaskManager, task::{TaskError, TaskManagerOptions, TimeoutKind}};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().max_running(1));
    /// tasks.create_task(pending::<()>()).name("slow").spawn()?;
    /// let mail = tasks.create_task(async {}).name("mail").queue_timeout(Duration::from_millis(5)).spawn()?;
    /// let error = mail.await.unwrap_err();
    /// assert!(matches!(error, TaskError::TimedOut { limit: TimeoutKind::Queue, .. }));
    /// # tasks.close(Some(Duration::ZERO)).await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn queue_timeout(self, timeout: Duration) -> Self {
        self.with(|extras| extras.queue_timeout = Some(timeout))
    }

    /// Limits how long the task may go without a heartbeat: then it times out. The beginning of the task is the first
    /// heartbeat; the others are its calls of [`heartbeat`](TaskContext::heartbeat) and
    /// [`progress`](TaskContext::progress).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let tasks = agentflow::BackgroundTaskManager::new();
    /// let import = tasks
    ///     .create_task_with_context(|task| async move {
    ///         for row in 0..10 {
    ///             tokio::time::sleep(Duration::from_millis(1)).await;
    ///             task.progress(f64::from(row) / 10.0, "importing");
    ///         }
    ///     })
    ///     .idle_timeout(Duration::from_secs(5))
    ///     .spawn()?;
    /// import.await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn idle_timeout(self, timeout: Duration) -> Self {
        self.with(|extras| extras.idle_timeout = Some(timeout))
    }

    /// Sets how long the task may take to end by itself when it is cancelled, if it listens to its token. Overrides the
    /// manager's [`grace_period`](crate::task::TaskManagerOptions::grace_period).
    ///
    /// ```
    /// # use std::time::Duration;
    /// use agentflow::task::TaskOutcome;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let options = agentflow::task::TaskManagerOptions::new().grace_period(Duration::ZERO);
    /// # let tasks = agentflow::BackgroundTaskManager::with_options(options);
    /// tasks
    ///     .create_task_with_context(|task| async move {
    ///         task.cancelled().await;
    ///         tokio::time::sleep(Duration::from_millis(5)).await; // saves what there is
    ///     })
    ///     .grace_period(Duration::from_secs(20))
    ///     .spawn()?;
    /// let report = tasks.cancel_all().await;
    /// assert_eq!(report.ended[0].outcome(), TaskOutcome::Completed);
    /// # Ok(())
    /// # }
    /// ```
    pub fn grace_period(self, grace: Duration) -> Self {
        self.with(|extras| extras.grace_period = Some(grace))
    }

    /// Cancels the task last when the manager closes: after all others have ended, or have used up their grace period.
    /// Then it has its own grace period, whether it listens to its token or not. Such a task is never dropped to make
    /// room for another one.
    ///
    /// The order holds for [`close`](BackgroundTaskManager::close), and so for the app's
    /// [`aclose`](crate::CompiledGraph::aclose) and [`stop`](crate::CompiledGraph::stop). Other ways to cancel treat
    /// the task like any other: dropping the manager without a close, [`cancel`](BackgroundTaskManager::cancel),
    /// [`cancel_all`](BackgroundTaskManager::cancel_all) and [`OnRunEnd::Cancel`].
    ///
    /// ```
    /// # use std::{future::pending, time::Duration};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let tasks = agentflow::BackgroundTaskManager::new();
    /// let flush = async { tokio::time::sleep(Duration::from_millis(5)).await };
    /// tasks.create_task(flush).name("flush").cancel_last().spawn()?;
    /// tasks.create_task(pending::<()>()).name("poll").spawn()?;
    ///
    /// let report = tasks.close(Some(Duration::ZERO)).await;
    /// assert_eq!(report.outcomes.completed, 1);
    /// assert_eq!(report.unfinished[0].name(), "poll");
    /// # Ok(())
    /// # }
    /// ```
    pub fn cancel_last(self) -> Self {
        self.with(|extras| extras.cancel_last = true)
    }

    /// Begins the task after a delay, counted from its spawn. Until then it is
    /// [`Delayed`](crate::task::TaskState::Delayed): it occupies no slot of
    /// [`max_running`](crate::task::TaskManagerOptions::max_running), does not hold up others with its
    /// [key](Self::key), and can be cancelled and [replaced](OnDuplicateKey::Replace) like a queued task. When the delay
    /// is over, the task runs, or is queued.
    ///
    /// The task is live all the while: it counts towards [`max_tasks`](crate::task::TaskManagerOptions::max_tasks), and
    /// [`wait_for_all`](BackgroundTaskManager::wait_for_all) waits for it, delay included. A close ends the delay: see
    /// [`on_close`](Self::on_close). The [`timeout`](Self::timeout) counts from the spawn, so one that is no longer than
    /// the delay ends the task before it begins; the [`queue_timeout`](Self::queue_timeout) counts from the end of the
    /// delay. A delay of zero is none, and only a close ends one beyond the clock's range.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use agentflow::task::{OnDuplicateKey, TaskState};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let tasks = agentflow::BackgroundTaskManager::new();
    /// let mail = |text| {
    ///     let send = async move { println!("{text}") };
    ///     tasks.create_task(send).name("mail").key("ada", OnDuplicateKey::Replace).delay(Duration::from_secs(60))
    /// };
    /// let first = mail("1 new message").spawn()?;
    /// let last = mail("2 new messages").spawn()?; // replaces the first
    /// assert!(first.await.is_err());
    /// assert_eq!(tasks.task_info()[0].state(), TaskState::Delayed);
    /// last.await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn delay(self, delay: Duration) -> Self {
        self.with(|extras| extras.delay = Some(delay).filter(|delay| !delay.is_zero()))
    }

    /// Sets the effect of a close on the task while it waits for its [delay](Self::delay); by default it runs at once.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use agentflow::task::OnClose;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let tasks = agentflow::BackgroundTaskManager::new();
    /// let hour = Duration::from_secs(3600);
    /// tasks.create_task(async {}).name("save").delay(hour).spawn()?;
    /// tasks.create_task(async {}).name("refresh").delay(hour).on_close(OnClose::Drop).spawn()?;
    ///
    /// let report = tasks.close(Some(Duration::from_secs(5))).await;
    /// assert_eq!((report.outcomes.completed, report.outcomes.cancelled), (1, 1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_close(self, on_close: OnClose) -> Self {
        self.with(|extras| extras.on_close = on_close)
    }

    /// Sets the effect on the task of the end of the run that spawned it; by default the task lives on.
    pub fn on_run_end(self, on_run_end: OnRunEnd) -> Self {
        self.with(|extras| extras.on_run_end = on_run_end)
    }

    /// Sets the task's key. At most one task of a name and a key runs at a time; `on_duplicate` is the effect of this
    /// spawn on a live task with the same name and key, or of that task on this spawn. The key `user-7` of tasks named
    /// `index` has nothing to do with the key `user-7` of tasks named `mail`: see [`key_in`](Self::key_in).
    ///
    /// ```
    /// use agentflow::task::{OnDuplicateKey, SpawnError};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let tasks = agentflow::BackgroundTaskManager::new();
    /// let index = || tasks.create_task(async {}).name("index").key("user-7", OnDuplicateKey::Skip);
    /// index().spawn()?;
    /// assert_eq!(index().spawn().unwrap_err(), SpawnError::DuplicateKey);
    /// # tasks.wait_for_all(None).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn key(self, key: impl Into<Arc<str>>, on_duplicate: OnDuplicateKey) -> Self {
        self.keyed(TaskKey { scope: None, key: key.into() }, on_duplicate)
    }

    /// Sets the task's key in a scope that tasks of several names share: at most one task of a scope and a key runs at
    /// a time. [`key`](Self::key) is the same with the task's name as its scope.
    ///
    /// ```
    /// use agentflow::task::{OnDuplicateKey, SpawnError};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let tasks = agentflow::BackgroundTaskManager::new();
    /// let task = |name| tasks.create_task(async {}).name(name).key_in("account", "user-7", OnDuplicateKey::Skip);
    /// task("export").spawn()?;
    /// assert_eq!(task("delete").spawn().unwrap_err(), SpawnError::DuplicateKey);
    /// # tasks.wait_for_all(None).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn key_in(
        self,
        scope: impl Into<Cow<'static, str>>,
        key: impl Into<Arc<str>>,
        on_duplicate: OnDuplicateKey,
    ) -> Self {
        self.keyed(TaskKey { scope: Some(scope.into()), key: key.into() }, on_duplicate)
    }

    fn keyed(self, key: TaskKey, on_duplicate: OnDuplicateKey) -> Self {
        self.with(|extras| extras.key = Some(KeySetting { key, on_duplicate, replaced_by: OnceLock::new() }))
    }

    fn with(mut self, set: impl FnOnce(&mut TaskExtras)) -> Self {
        set(self.extras.get_or_insert_default());
        self
    }
}

mod sealed {
    use std::time::Duration;

    use crate::RetryPolicy;

    pub trait Sealed {
        fn set_policy(&mut self, policy: RetryPolicy);
        fn set_attempt_timeout(&mut self, timeout: Duration);
    }
}

/// Work that can be begun again, as that of [`create_retrying_task`](BackgroundTaskManager::create_retrying_task).
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "this task has one attempt only: its future can't be run again",
    label = "not a task that retries",
    note = "create it with `create_retrying_task(|attempt| ..)`, and give the future of each attempt there"
)]
pub trait Attempts: sealed::Sealed {}

impl<M> Attempts for Retrying<M> {}

impl<M> sealed::Sealed for Retrying<M> {
    fn set_policy(&mut self, policy: RetryPolicy) {
        self.retries.policy = policy;
    }

    fn set_attempt_timeout(&mut self, timeout: Duration) {
        self.retries.attempt_timeout = Some(timeout);
    }
}

/// Settings of tasks that are created with [`create_retrying_task`](BackgroundTaskManager::create_retrying_task).
impl<T, W> TaskBuilder<'_, T, W> {
    /// Sets how often, when and after which errors to try again. The default is three retries, so four attempts, with a
    /// pause of 100 ms that doubles, and jitter.
    pub fn retry(mut self, policy: impl Into<RetryPolicy>) -> Self
    where
        W: Attempts,
    {
        self.work.set_policy(policy.into());
        self
    }

    /// Limits how long each attempt may take. An attempt that takes longer fails with
    /// [`AttemptTimedOut`](crate::error::AttemptTimedOut), which the policy may retry.
    ///
    /// ```
    /// # use std::{future::pending, time::Duration};
    /// use agentflow::RetryPolicy;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let tasks = agentflow::BackgroundTaskManager::new();
    /// let page = tasks
    ///     .create_retrying_task(|attempt| async move {
    ///         if attempt == 1 {
    ///             pending::<()>().await; // the server hangs
    ///         }
    ///         Ok::<_, std::io::Error>("<html>")
    ///     })
    ///     .retry(RetryPolicy::new(2).backoff(Duration::from_millis(1)))
    ///     .attempt_timeout(Duration::from_millis(5))
    ///     .spawn()?;
    /// assert_eq!(page.await?, "<html>");
    /// assert_eq!(tasks.stats().retries, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self
    where
        W: Attempts,
    {
        self.work.set_attempt_timeout(timeout);
        self
    }
}

impl<'m, T, W> TaskBuilder<'m, T, W> {
    /// Spawns the task. Can be called from any thread, and never waits.
    ///
    /// # Errors
    ///
    /// Returns a [`SpawnError`] if the manager is closed or full, if there is no runtime, or if the task's key is
    /// taken; the task is dropped without having begun.
    pub fn spawn(self) -> Result<TaskHandle<T>, SpawnError> {
        let mut pending = self.into_pending()?;
        match pending.admit() {
            Ok(()) => pending.launch(),
            Err(why) => Err(pending.reject(why)),
        }
    }

    /// Spawns the task, or returns `None` if its key is taken and it was to be
    /// [skipped](OnDuplicateKey::Skip): another task does the work already.
    ///
    /// ```
    /// use agentflow::task::OnDuplicateKey;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let tasks = agentflow::BackgroundTaskManager::new();
    /// let index = || tasks.create_task(async {}).name("index").key("user-7", OnDuplicateKey::Skip);
    /// assert!(index().spawn_if_free()?.is_some());
    /// assert!(index().spawn_if_free()?.is_none());
    /// # tasks.wait_for_all(None).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the errors of [`spawn`](Self::spawn), but never [`SpawnError::DuplicateKey`]. Such a spawn counts as
    /// [rejected](crate::task::TaskStats::rejected) all the same.
    pub fn spawn_if_free(self) -> Result<Option<TaskHandle<T>>, SpawnError> {
        match self.spawn() {
            Ok(handle) => Ok(Some(handle)),
            Err(SpawnError::DuplicateKey) => Ok(None),
            Err(why) => Err(why),
        }
    }

    /// Spawns the task as soon as there is a free slot: where [`spawn`](Self::spawn) would return
    /// [`SpawnError::Full`], this waits, for as long as it takes.
    ///
    /// Waiting spawns get slots in the order of their first polls, so a future that is kept without being polled holds
    /// up those behind it. A spawn that needs no free slot does not wait, even if others do: one that takes over
    /// the slot of a task that it [replaces](OnDuplicateKey::Replace), or one that is refused. A task that waits here for a
    /// slot that only its own end would free waits until it is stopped.
    ///
    /// ```
    /// use agentflow::{BackgroundTaskManager, task::TaskManagerOptions};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().max_tasks(10));
    /// for _ in 0..100 {
    ///     tasks.create_task(async {}).spawn_wait().await?; // never more than ten at once
    /// }
    /// # tasks.wait_for_all(None).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the errors of [`spawn`](Self::spawn), but never [`SpawnError::Full`]. If the manager closes meanwhile,
    /// the wait ends with [`SpawnError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the task unspawned and uncounted.
    pub async fn spawn_wait(self) -> Result<TaskHandle<T>, SpawnError> {
        let mut pending = self.into_pending()?;
        match pending.admit_when_free().await {
            Ok(()) => pending.launch(),
            Err(why) => Err(pending.reject(why)),
        }
    }

    /// Fills in the defaults.
    fn into_pending(self) -> Result<PendingTask<'m, T, W>, SpawnError> {
        let Self { manager, work, vtable, name, timeout, context, mut extras } = self;
        let registry = &manager.registry;
        let name = name.unwrap_or_else(|| Cow::Borrowed(default_name((vtable.type_name)())));
        let runtime = match &registry.runtime {
            Some(runtime) => Cow::Borrowed(runtime),
            None => Cow::Owned(Handle::try_current().map_err(|_| registry.reject(&name, SpawnError::NoRuntime))?),
        };
        if vtable.is_blocking {
            extras.get_or_insert_default().is_blocking = true;
        }
        if let Some(setting) = extras.as_deref_mut().and_then(|extras| extras.key.as_mut()) {
            setting.key.scope.get_or_insert_with(|| name.clone());
        }
        let spec = TaskSpec {
            name,
            timeout,
            context: context.into_boxed_slice(),
            token: vtable.has_token.then(CancellationToken::new),
            extras,
        };
        let task = Arc::new(TaskRecord::new(spec, manager.origin(), now_in(&runtime)));
        Ok(PendingTask { manager, runtime, task, work, launch: vtable.launch })
    }
}

/// A task that is about to be admitted.
struct PendingTask<'m, T, W> {
    manager: &'m BackgroundTaskManager,
    /// The manager's runtime, or that of the caller if the manager has none.
    runtime: Cow<'m, Handle>,
    task: Arc<TaskRecord>,
    work: Box<W>,
    launch: Launch<T, W>,
}

impl<T, W> PendingTask<'_, T, W> {
    fn admit(&mut self) -> Result<(), SpawnError> {
        self.manager.registry.admit(&mut self.task, self.manager.spawner())
    }

    async fn admit_when_free(&mut self) -> Result<(), SpawnError> {
        let Self { manager, task, .. } = self;
        manager.registry.admit_when_free(task, manager.spawner()).await
    }

    fn reject(self, why: SpawnError) -> SpawnError {
        self.manager.registry.reject(&self.task.spec.name, why)
    }

    /// Hands the task to the runtime, once it is admitted.
    fn launch(self) -> Result<TaskHandle<T>, SpawnError> {
        let Self { manager, runtime, task, work, launch } = self;
        let registry = &manager.registry;
        let current = CurrentTask { registry: Arc::clone(registry), task: Arc::clone(&task) };
        let handle = launch(work, &runtime, current);
        registry.task_accepted(&task);
        // A runtime that has shut down drops the task at once, and with it the supervisor, which refuses it.
        if task.is_refused() { Err(registry.reject(&task.spec.name, SpawnError::Closed)) } else { Ok(handle) }
    }
}

impl<T, W> fmt::Debug for TaskBuilder<'_, T, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskBuilder")
            .field("name", &self.name)
            .field("timeout", &self.timeout)
            .field("context", &self.context)
            .field("extras", &self.extras)
            .finish_non_exhaustive()
    }
}

/// Returns the functions of a future.
pub(super) fn future<F>() -> WorkVtable<<F::Output as TaskOutput>::Value, F>
where
    F: Future + Send + 'static,
    F::Output: TaskOutput,
{
    WorkVtable {
        launch: |future, runtime, current| {
            if const { size_of::<F>() > LARGE } {
                launch(FutureWork { future: Box::into_pin(future) }, runtime, current)
            } else {
                launch(FutureWork { future: *future }, runtime, current)
            }
        },
        type_name: type_name::<F>,
        has_token: false,
        is_blocking: false,
    }
}

/// Returns the functions of a closure from the task's context to a future.
pub(super) fn with_context<C, F>() -> WorkVtable<<F::Output as TaskOutput>::Value, C>
where
    C: FnOnce(TaskContext) -> F + Send + 'static,
    F: Future + Send + 'static,
    F::Output: TaskOutput,
{
    WorkVtable {
        launch: |make, runtime, current| {
            if const { size_of::<C>() > LARGE || size_of::<F>() > LARGE } {
                let make = Some(move |task: TaskContext| Box::pin(make(task)));
                launch(ContextWork::Closure { make }, runtime, current)
            } else {
                launch(ContextWork::Closure { make: Some(*make) }, runtime, current)
            }
        },
        type_name: type_name::<C>,
        has_token: true,
        is_blocking: false,
    }
}

/// Returns the functions of a closure that blocks its thread.
pub(super) fn blocking<C, O>() -> WorkVtable<O::Value, C>
where
    C: FnOnce(TaskContext) -> O + Send + 'static,
    O: TaskOutput,
{
    WorkVtable {
        launch: |run, runtime, current| {
            if const { size_of::<C>() > LARGE } {
                launch(BlockingWork::new(run), runtime, current)
            } else {
                launch(BlockingWork::new(*run), runtime, current)
            }
        },
        type_name: type_name::<C>,
        has_token: true,
        is_blocking: true,
    }
}

/// Returns the functions of a closure from the number of an attempt to its future.
pub(super) fn in_attempts<M, F>() -> WorkVtable<<F::Output as TaskOutput>::Value, Retrying<M>>
where
    M: FnMut(u32) -> F + Send + 'static,
    F: Future + Send + 'static,
    F::Output: TaskOutput,
{
    WorkVtable {
        launch: |mut work, runtime, current| {
            if const { size_of::<M>() > LARGE || size_of::<F>() > LARGE } {
                let retries = work.retries.clone();
                let make = move |attempt| Box::pin((work.make)(attempt));
                launch(RetryingWork { future: retrying(make, retries) }, runtime, current)
            } else {
                let Retrying { make, retries } = *work;
                launch(RetryingWork { future: retrying(make, retries) }, runtime, current)
            }
        },
        type_name: type_name::<M>,
        has_token: false,
        is_blocking: false,
    }
}

/// Hands an admitted task to the runtime.
fn launch<W>(work: W, runtime: &Handle, current: CurrentTask) -> TaskHandle<W::Value>
where
    W: Work + Send + 'static,
{
    let task = Arc::clone(&current.task);
    // The handle finds the result in the task's record.
    drop(runtime.spawn(Supervisor::new(current, work)));
    TaskHandle::new(task)
}

/// Returns the last segment of a type's path, without its generics: `send` for `app::notify::send::{{closure}}`.
fn default_name(path: &str) -> &str {
    let mut path = path;
    while let Some(outer) = path.strip_suffix("::{{closure}}") {
        path = outer;
    }
    let mut depth = 0_usize;
    let mut start = 0;
    let mut end = path.len();
    for (index, byte) in path.bytes().enumerate() {
        match byte {
            b'<' => {
                if depth == 0 && index > start {
                    end = index;
                }
                depth += 1;
            }
            b'>' => depth = depth.saturating_sub(1),
            b':' if depth == 0 => {
                start = index + 1;
                end = path.len();
            }
            _ => {}
        }
    }
    path.get(start..end).filter(|name| !name.is_empty()).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::default_name;

    #[test]
    fn the_default_name_is_the_functions() {
        for (path, name) in [
            ("app::notify::send::{{closure}}", "send"),
            ("app::main::{{closure}}::{{closure}}", "main"),
            ("app::store::put<alloc::string::String>::{{closure}}", "put"),
            ("<app::Mailer as app::Send>::send::{{closure}}", "send"),
            ("core::pin::Pin<alloc::boxed::Box<dyn core::future::Future<Output = ()>>>", "Pin"),
            ("()", "()"),
        ] {
            assert_eq!(default_name(path), name, "{path}");
        }
    }
}

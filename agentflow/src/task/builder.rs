//! [`TaskBuilder`]: what is said of a task before it is spawned.

use std::{any::type_name, borrow::Cow, fmt, sync::Arc, time::Duration};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    body::{Blocking, Body, Lazy, Plain, Retries, Whole, retrying},
    context::{Current, TaskContext},
    handle::TaskHandle,
    manager::BackgroundTaskManager,
    outcome::{TaskOutcome, TaskOutput},
    owner::OnRunEnd,
    record::{Extras, Spec, Task},
    supervise::Supervise,
    sync::Handle,
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
/// It makes a `T` in the end, by means of a `W`: the future or the closure that it was created with.
#[must_use = "nothing runs until `.spawn()` is called"]
pub struct TaskBuilder<'m, T, W> {
    manager: &'m BackgroundTaskManager,
    work: W,
    kind: Kind<T, W>,
    name: Option<Cow<'static, str>>,
    timeout: Option<Duration>,
    context: Vec<(Cow<'static, str>, Value)>,
    extras: Option<Box<Extras>>,
}

/// What is known of a `W` where it is known to be a future or a closure.
///
/// A function pointer, so that `spawn` itself has no bounds: what can't be a task is one error, where the task is
/// created, and not a second one at `.spawn()`.
pub(super) struct Kind<T, W> {
    launch: fn(W, Launchpad<'_>) -> Result<TaskHandle<T>, SpawnError>,
    type_name: fn() -> &'static str,
    listens: bool,
    blocks: bool,
}

/// A task that is admitted, and about to be handed to the runtime.
struct Launchpad<'a> {
    runtime: &'a Handle,
    current: Current,
}

/// Why a task was not spawned. Its future was dropped without being polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The manager was closed, or its last owner dropped, or it is closing and the spawn doesn't belong to work that
    /// is under way; or its runtime has shut down.
    #[error("the task manager is closed")]
    Closed,
    /// There is no runtime to run the task on: neither the manager was made within one, nor was the task spawned
    /// within one.
    #[error("there is no tokio runtime here: make the task manager, or spawn the task, within one")]
    NoRuntime,
    /// There are [as many tasks as there may be](crate::task::TaskManagerOptions::max_tasks).
    #[error("the task manager is full: wait for room with `spawn_wait`, or let it drop the oldest task")]
    Full,
    /// There is a task with this key already: see [`OnDuplicateKey::Skip`].
    #[error("a task with this key is there already")]
    DuplicateKey,
}

impl SpawnError {
    /// The reason as one word for logs and metrics, such as `full`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::NoRuntime => "no_runtime",
            Self::Full => "full",
            Self::DuplicateKey => "duplicate_key",
        }
    }
}

/// What happens to the spawn of a task whose [key](TaskBuilder::key) another live one has.
///
/// Either way no two tasks of one key run at once.
///
/// ```
/// use agentflow::task::{OnDuplicateKey, TaskError};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let tasks = agentflow::BackgroundTaskManager::new();
/// let search = |text: &'static str, when_busy| {
///     tasks.create_task(async move { Ok::<_, std::io::Error>(text) }).key("search", when_busy).spawn()
/// };
/// let typed = search("ag", OnDuplicateKey::Queue)?;
/// let next = search("agent", OnDuplicateKey::Queue)?; // runs after the first
/// let last = search("agentflow", OnDuplicateKey::Replace)?; // cancels both
/// assert!(matches!(typed.await, Err(TaskError::Cancelled)));
/// assert!(matches!(next.await, Err(TaskError::Cancelled)));
/// assert_eq!(last.await?, "agentflow");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnDuplicateKey {
    /// The others are cancelled, and the new one runs when they have ended: the latest counts. It has the place of one of
    /// them where places are [limited](crate::task::TaskManagerOptions::max_tasks). To debounce, let the task begin with a sleep.
    Replace,
    /// The new one is refused with [`SpawnError::DuplicateKey`]: a singleton.
    Skip,
    /// The new one waits for its turn, [`Queued`](crate::task::TaskState::Queued): one after the other.
    Queue,
}

/// A closure that makes the future of each attempt: what
/// [`create_retrying_task`](BackgroundTaskManager::create_retrying_task) is given, with its policy.
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
    pub(super) fn new(manager: &'m BackgroundTaskManager, work: W, kind: Kind<T, W>) -> Self {
        Self { manager, work, kind, name: None, timeout: None, context: Vec::new(), extras: None }
    }

    /// The task's name, in logs and reports. Unless told, the name of the function that made the future.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How long the task may take, counted from its spawn, in steps of a millisecond: waiting for its turn and all its
    /// attempts included. When the time is over, the task is dropped where it awaits, and a warning is logged.
    ///
    /// A task that is done when its time is over is done, even if it noticed late because it blocked its thread: then
    /// the warning says by how much. With `Duration::ZERO` the task times out without being polled.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Adds a field to what is logged and reported of the task; a second value for a key replaces the first.
    pub fn context(mut self, key: impl Into<Cow<'static, str>>, value: impl Into<Value>) -> Self {
        let (key, value) = (key.into(), value.into());
        match self.context.iter_mut().find(|(known, _)| *known == key) {
            Some((_, old)) => *old = value,
            None => self.context.push((key, value)),
        }
        self
    }

    /// How long the task may wait for its turn, counted from its spawn: then it is timed out without having begun. It
    /// replaces the manager's [`queue_timeout`](crate::task::TaskManagerOptions::queue_timeout).
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

    /// How long the task may go without a sign of life: then it is timed out. Its beginning is the first one; the others
    /// are its calls of [`heartbeat`](TaskContext::heartbeat) and [`progress`](TaskContext::progress).
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

    /// How long the task may take to end by itself when it is cancelled, if it listens to its token. It replaces the
    /// manager's [`grace`](crate::task::TaskManagerOptions::grace_period).
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

    /// When the manager closes, the task is cancelled last: after all others have ended, or have used up their grace.
    /// Then it has its own grace, whether it listens to its token or not. It is never dropped to make room for another
    /// one.
    ///
    /// That is what [`close`](BackgroundTaskManager::close), and with it the app's
    /// [`aclose`](crate::CompiledGraph::aclose) and [`stop`](crate::CompiledGraph::stop), does for it. All else that
    /// cancels doesn't wait for it: dropping the manager without a close, [`cancel`](BackgroundTaskManager::cancel),
    /// [`cancel_all`](BackgroundTaskManager::cancel_all) and [`OnRunEnd::Cancel`] treat it like any other task.
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
    /// assert_eq!(report.completed, 1);
    /// assert_eq!(report.unfinished[0].name(), "poll");
    /// # Ok(())
    /// # }
    /// ```
    pub fn cancel_last(self) -> Self {
        self.with(|extras| extras.cancel_last = true)
    }

    /// What becomes of the task when the run that spawned it ends; it lives on unless told.
    pub fn on_run_end(self, on_run_end: OnRunEnd) -> Self {
        self.with(|extras| extras.on_run_end = on_run_end)
    }

    /// Of the tasks with one key no two run at once; what happens to this one if there is another is for `when_busy` to
    /// say.
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
    pub fn key(self, key: impl Into<Arc<str>>, when_busy: OnDuplicateKey) -> Self {
        self.with(|extras| extras.key = Some((key.into(), when_busy)))
    }

    fn with(mut self, set: impl FnOnce(&mut Extras)) -> Self {
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

/// Work that can be begun again: what [`create_retrying_task`](BackgroundTaskManager::create_retrying_task) is given.
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

/// For tasks that are made with [`create_retrying_task`](BackgroundTaskManager::create_retrying_task).
impl<T, W> TaskBuilder<'_, T, W> {
    /// How often, when and after which errors to try again; three times unless told, with a pause of 100 ms that doubles,
    /// and jitter.
    pub fn retry(mut self, policy: impl Into<RetryPolicy>) -> Self
    where
        W: Attempts,
    {
        self.work.set_policy(policy.into());
        self
    }

    /// How long each attempt may take. One that takes longer has failed with
    /// [`AttemptTimedOut`](crate::error::AttemptTimedOut), which the policy may try again after.
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
    /// Starts the task. From any thread, and without waiting.
    ///
    /// # Errors
    ///
    /// [`SpawnError`], when the manager is closed or full, there is no runtime, or the task's key is taken; the task is
    /// dropped without having begun.
    pub fn spawn(self) -> Result<TaskHandle<T>, SpawnError> {
        let mut candidate = self.candidate()?;
        match candidate.admit() {
            Ok(()) => candidate.launch(),
            Err(why) => Err(candidate.reject(why)),
        }
    }

    /// Starts the task as soon as there is room for it: where [`spawn`](Self::spawn) would give
    /// [`SpawnError::Full`], this waits, for as long as it takes. Those who wait get room one after the other, in the order
    /// in which they came; so one that is kept without being polled holds up those behind it. A task that waits here for
    /// room that only its own end would make waits until it is stopped.
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
    /// As [`spawn`](Self::spawn), but never [`SpawnError::Full`]. A manager that closes meanwhile ends the wait with
    /// [`SpawnError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the task unspawned and uncounted.
    pub async fn spawn_wait(self) -> Result<TaskHandle<T>, SpawnError> {
        let mut candidate = self.candidate()?;
        match candidate.admit_in_turn().await {
            Ok(()) => candidate.launch(),
            Err(why) => Err(candidate.reject(why)),
        }
    }

    fn candidate(self) -> Result<Candidate<'m, T, W>, SpawnError> {
        let Self { manager, work, kind, name, timeout, context, mut extras } = self;
        let registry = &manager.registry;
        let name = name.unwrap_or_else(|| Cow::Borrowed(default_name((kind.type_name)())));
        let runtime = match &registry.runtime {
            Some(runtime) => Cow::Borrowed(runtime),
            None => Cow::Owned(Handle::try_current().map_err(|_| registry.reject(&name, SpawnError::NoRuntime))?),
        };
        if kind.blocks {
            extras.get_or_insert_default().is_blocking = true;
        }
        let spec = Spec {
            name,
            timeout,
            context: context.into_boxed_slice(),
            token: kind.listens.then(CancellationToken::new),
            extras,
        };
        Ok(Candidate { manager, runtime, task: Arc::new(Task::new(spec, manager.origin())), work, launch: kind.launch })
    }
}

/// A task that asks to be admitted.
struct Candidate<'m, T, W> {
    manager: &'m BackgroundTaskManager,
    /// The manager's, or the one here if it has none of its own.
    runtime: Cow<'m, Handle>,
    task: Arc<Task>,
    work: W,
    launch: fn(W, Launchpad<'_>) -> Result<TaskHandle<T>, SpawnError>,
}

impl<T, W> Candidate<'_, T, W> {
    fn admit(&mut self) -> Result<(), SpawnError> {
        self.manager.registry.admit(&mut self.task, self.manager.spawner())
    }

    async fn admit_in_turn(&mut self) -> Result<(), SpawnError> {
        let Self { manager, task, .. } = self;
        manager.registry.admit_in_turn(task, manager.spawner()).await
    }

    fn reject(self, why: SpawnError) -> SpawnError {
        self.manager.registry.reject(&self.task.spec.name, why)
    }

    /// Hands the task to the runtime, once it is admitted.
    fn launch(self) -> Result<TaskHandle<T>, SpawnError> {
        let Self { manager, runtime, task, work, launch } = self;
        let current = Current { registry: Arc::clone(&manager.registry), task };
        launch(work, Launchpad { runtime: &runtime, current })
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

/// A future.
pub(super) fn plain<F>() -> Kind<<F::Output as TaskOutput>::Value, F>
where
    F: Future + Send + 'static,
    F::Output: TaskOutput,
{
    Kind { launch: |future, pad| pad.start(Plain { future }), type_name: type_name::<F>, listens: false, blocks: false }
}

/// A closure from the task's context to a future.
pub(super) fn with_context<C, F>() -> Kind<<F::Output as TaskOutput>::Value, C>
where
    C: FnOnce(TaskContext) -> F + Send + 'static,
    F: Future + Send + 'static,
    F::Output: TaskOutput,
{
    Kind {
        launch: |make, pad| pad.start(Lazy::Unmade { make: Some(make) }),
        type_name: type_name::<C>,
        listens: true,
        blocks: false,
    }
}

/// A closure that blocks its thread.
pub(super) fn blocking<C, O>() -> Kind<O::Value, C>
where
    C: FnOnce(TaskContext) -> O + Send + 'static,
    O: TaskOutput,
{
    Kind {
        launch: |run, pad| pad.start(Blocking::Unmade(Some(run))),
        type_name: type_name::<C>,
        listens: true,
        blocks: true,
    }
}

/// A closure from the number of an attempt to its future.
pub(super) fn in_attempts<M, F>() -> Kind<<F::Output as TaskOutput>::Value, Retrying<M>>
where
    M: FnMut(u32) -> F + Send + 'static,
    F: Future + Send + 'static,
    F::Output: TaskOutput,
{
    Kind {
        launch: |Retrying { make, retries }, pad| pad.start(Whole { future: retrying(make, retries) }),
        type_name: type_name::<M>,
        listens: false,
        blocks: false,
    }
}

impl Launchpad<'_> {
    fn start<B>(self, body: B) -> Result<TaskHandle<B::Value>, SpawnError>
    where
        B: Body + Send + 'static,
        B::Value: Send + 'static,
    {
        let Self { runtime, current } = self;
        let task = Arc::clone(&current.task);
        // From here on the task ends with this, even if those who are told of it panic.
        let mut supervise = Supervise::new(current, body);
        supervise.announce();
        let join = runtime.spawn(supervise);
        // A runtime that has shut down drops what it is given.
        if join.is_finished()
            && task.attempt() == 0
            && task.end().is_some_and(|end| end.outcome == TaskOutcome::Aborted)
        {
            return Err(SpawnError::Closed);
        }
        Ok(TaskHandle::new(task, join))
    }
}

/// The last segment of a type's path, without its generics: `send` for `app::notify::send::{{closure}}`.
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

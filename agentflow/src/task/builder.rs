//! [`TaskBuilder`]: what is said of a task before it is spawned.

use std::{
    any::type_name,
    borrow::Cow,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use super::{
    context::{CURRENT, Current, TaskContext},
    handle::TaskHandle,
    log,
    manager::BackgroundTaskManager,
    outcome::{TaskOutcome, TaskOutput},
    record::{Request, Spec},
    supervise::{self, Body, Supervise},
};

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
}

/// What is known of a `W` where it is known to be a future or a closure.
///
/// A function pointer, so that `spawn` itself has no bounds: what can't be a task is one error, where the task is
/// created, and not a second one at `.spawn()`.
pub(super) struct Kind<T, W> {
    launch: fn(W, Launchpad<'_>) -> Result<TaskHandle<T>, SpawnError>,
    type_name: fn() -> &'static str,
    listens: bool,
}

/// A task that is admitted, and about to be handed to the runtime.
struct Launchpad<'a> {
    runtime: &'a Handle,
    admitted: Admitted,
    span: Span,
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
}

impl<'m, T, W> TaskBuilder<'m, T, W> {
    pub(super) fn new(manager: &'m BackgroundTaskManager, work: W, kind: Kind<T, W>) -> Self {
        Self { manager, work, kind, name: None, timeout: None, context: Vec::new() }
    }

    /// The task's name, in logs and reports. Unless told, the name of the function that made the future.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How long the task may take, counted from its spawn, in steps of a millisecond. When the time is over, the
    /// task is dropped where it awaits, and a warning is logged.
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
}

impl<T, W> TaskBuilder<'_, T, W> {
    /// Starts the task. From any thread, and without waiting.
    pub fn spawn(self) -> Result<TaskHandle<T>, SpawnError> {
        let Self { manager, work, kind, name, timeout, context } = self;
        let registry = &manager.registry;
        let here;
        let runtime = if let Some(runtime) = &registry.runtime {
            runtime
        } else {
            here = Handle::try_current().map_err(|_| registry.reject(SpawnError::NoRuntime))?;
            &here
        };
        let spec = Spec {
            name: name.unwrap_or_else(|| Cow::Borrowed(default_name((kind.type_name)()))),
            timeout,
            context: context.into_boxed_slice(),
            token: kind.listens.then(CancellationToken::new),
        };
        let task = registry.admit(spec, manager.lineage(), manager.origin())?;
        let admitted = Admitted { current: Current { registry: Arc::clone(registry), task }, is_supervised: false };
        let span = log::span(&admitted.current.task);
        (kind.launch)(work, Launchpad { runtime, admitted, span })
    }
}

impl<T, W> fmt::Debug for TaskBuilder<'_, T, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskBuilder")
            .field("name", &self.name)
            .field("timeout", &self.timeout)
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}

/// A future.
pub(super) fn plain<F>() -> Kind<<F::Output as TaskOutput>::Value, F>
where
    F: Future + Send + 'static,
    F::Output: TaskOutput,
{
    Kind {
        launch: |future, pad| {
            let body = CURRENT.scope(pad.admitted.current.clone(), future);
            pad.start(body)
        },
        type_name: type_name::<F>,
        listens: false,
    }
}

/// A closure from the task's context to a future.
pub(super) fn with_context<C, F>() -> Kind<<F::Output as TaskOutput>::Value, C>
where
    C: FnOnce(TaskContext) -> F + Send + 'static,
    F: Future + Send + 'static,
    F::Output: TaskOutput,
{
    Kind {
        launch: |make, pad| {
            let task = TaskContext::new(&pad.admitted.current);
            let body = CURRENT.scope(pad.admitted.current.clone(), Lazy::Unmade { make: Some((make, task)) });
            pad.start(body)
        },
        type_name: type_name::<C>,
        listens: true,
    }
}

/// A closure that blocks its thread.
pub(super) fn blocking<C, O>() -> Kind<O::Value, C>
where
    C: FnOnce(TaskContext) -> O + Send + 'static,
    O: TaskOutput,
{
    Kind {
        launch: |run, pad| {
            let (current, span) = (pad.admitted.current.clone(), pad.span.clone());
            if current.task.spec.timeout == Some(Duration::ZERO) {
                current.task.ask(Request::Cancel);
            }
            let body = pad.runtime.spawn_blocking(move || {
                // It may have waited for a thread for longer than somebody wanted it.
                if current.task.request() != Request::None {
                    return None;
                }
                let task = TaskContext::new(&current);
                Some(span.in_scope(|| CURRENT.sync_scope(current, || run(task))))
            });
            pad.start(body)
        },
        type_name: type_name::<C>,
        listens: true,
    }
}

/// A task that is counted and that nobody supervises yet: what panics in between, such as a subscriber to its span, must
/// not leave it live for ever.
struct Admitted {
    current: Current,
    is_supervised: bool,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if !self.is_supervised {
            let Current { registry, task } = &self.current;
            supervise::record(registry, task, TaskOutcome::Aborted, None);
        }
    }
}

impl Launchpad<'_> {
    fn start<B>(mut self, body: B) -> Result<TaskHandle<<B::Output as TaskOutput>::Value>, SpawnError>
    where
        B: Body + Send + 'static,
    {
        let Current { registry, task } = self.admitted.current.clone();
        let supervise = Supervise::new(registry, Arc::clone(&task), body);
        self.admitted.is_supervised = true;
        let join = self.runtime.spawn(supervise.instrument(self.span.clone()));
        // A runtime that has shut down drops what it is given.
        if !task.was_polled() && task.end().is_some_and(|end| end.outcome == TaskOutcome::Aborted) {
            return Err(SpawnError::Closed);
        }
        Ok(TaskHandle::new(task, join))
    }
}

pin_project! {
    /// A closure until the first poll, its future from then on, in the same place.
    #[project = LazyProjection]
    enum Lazy<C, F> {
        Unmade { make: Option<(C, TaskContext)> },
        Made { #[pin] future: F },
    }
}

impl<C, F> Future for Lazy<C, F>
where
    C: FnOnce(TaskContext) -> F,
    F: Future,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        loop {
            match self.as_mut().project() {
                LazyProjection::Unmade { make } => match make.take() {
                    Some((make, task)) => {
                        let future = make(task);
                        self.set(Self::Made { future });
                    }
                    // The closure panicked, and nobody polls a task again that did.
                    None => return Poll::Pending,
                },
                LazyProjection::Made { future } => return future.poll(cx),
            }
        }
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

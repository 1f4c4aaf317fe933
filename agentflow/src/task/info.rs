//! [`TaskInfo`] and [`FinishedTask`]: snapshots of a live task, and of one that ended.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Serialize, Serializer};
use serde_json::Value;
use tokio::time::Instant;

use super::{
    engine::task::{Fields, StopRequest, TaskEnd, TaskRecord},
    id::TaskId,
    origin::TaskOrigin,
    outcome::{TaskOutcome, TimeoutKind},
    progress::TaskProgress,
};
use crate::seconds;

/// Defines the accessors of the data that a task has from its spawn on; the type has the task's record in `task`.
macro_rules! task_accessors {
    () => {
        /// Returns the task's id.
        #[must_use]
        pub fn id(&self) -> $crate::task::TaskId {
            self.task.id
        }

        /// Returns the task's name.
        #[must_use]
        pub fn name(&self) -> &str {
            &self.task.spec.name
        }

        /// Returns the task's timeout, counted from its spawn.
        #[must_use]
        pub fn timeout(&self) -> Option<::std::time::Duration> {
            self.task.spec.timeout
        }

        /// Returns the task's log fields, in the order in which they were set.
        #[must_use]
        pub fn context(&self) -> impl ExactSizeIterator<Item = (&str, &::serde_json::Value)> {
            self.task.spec.context.iter().map(|(key, value)| (&**key, value))
        }

        /// Returns the run and the node that spawned the task; `None` if no node did.
        #[must_use]
        pub fn origin(&self) -> Option<&$crate::task::TaskOrigin> {
            self.task.origin.as_deref()
        }

        /// Returns the task's key.
        #[must_use]
        pub fn key(&self) -> Option<&str> {
            self.task.spec.key().map(|key| &**key)
        }
    };
}
pub(super) use task_accessors;

/// The state of a live task. In JSON it is one word, such as `queued`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TaskState {
    /// The task waits for its [delay](crate::task::TaskBuilder::delay) to end.
    Delayed,
    /// The task waits to run: see [`TaskManagerOptions::max_running`](crate::task::TaskManagerOptions::max_running) and
    /// [`TaskBuilder::key`](crate::task::TaskBuilder::key). A
    /// [blocking task](crate::BackgroundTaskManager::create_blocking_task) also waits for a thread.
    Queued,
    /// The task runs, and was not requested to stop.
    Running,
    /// The task was cancelled, or timed out, and has not ended yet.
    Cancelling,
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Delayed => "delayed",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Cancelling => "cancelling",
        })
    }
}

/// A live task, as it was when [`task_info`](crate::BackgroundTaskManager::task_info) was called.
///
/// Cheap to make and to clone: it shares name and log fields with the task. It serializes with all that its methods
/// return; durations are seconds.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let tasks = agentflow::BackgroundTaskManager::new();
/// tasks.create_task(async {}).name("upload").context("user", "ada").spawn()?;
/// let info = serde_json::to_value(tasks.task_info())?;
/// assert_eq!((&info[0]["id"], &info[0]["context"]["user"]), (&1.into(), &"ada".into()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TaskInfo {
    task: Arc<TaskRecord>,
    age: Duration,
    state: TaskState,
    attempt: u32,
    progress: Option<Arc<TaskProgress>>,
}

impl TaskInfo {
    task_accessors!();

    pub(super) fn new(task: &Arc<TaskRecord>, now: Instant) -> Self {
        let (attempt, progress) = task.attempt_and_progress();
        // The permit is read after the attempt, because a task that begins between the two is not queued any more.
        let is_queued = attempt == 0 && (!task.may_run() || task.spec.extras().is_blocking);
        let state = match task.stop_request() {
            StopRequest::None if attempt == 0 && task.is_delayed() => TaskState::Delayed,
            StopRequest::None if is_queued => TaskState::Queued,
            StopRequest::None => TaskState::Running,
            _ => TaskState::Cancelling,
        };
        Self { task: Arc::clone(task), age: task.age(now), state, attempt, progress }
    }

    /// Returns the same snapshot with this progress, whatever the task has reported since.
    pub(super) fn with_progress(self, progress: Arc<TaskProgress>) -> Self {
        Self { progress: Some(progress), ..self }
    }

    /// Returns how long ago the task was spawned.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.age
    }

    /// Returns what is left of the timeout; zero if it is over, `None` if the task has none.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.timeout().map(|timeout| timeout.saturating_sub(self.age))
    }

    /// Returns the task's state.
    #[must_use]
    pub fn state(&self) -> TaskState {
        self.state
    }

    /// Returns the number of the current attempt, from 1; 0 if the task has not begun yet. More than 1 is for tasks
    /// that [retry](crate::BackgroundTaskManager::create_retrying_task).
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Returns the progress that the task reported last.
    #[must_use]
    pub fn progress(&self) -> Option<&TaskProgress> {
        self.progress.as_deref()
    }
}

impl fmt::Debug for TaskInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskInfo")
            .field("id", &self.id().0)
            .field("name", &self.name())
            .field("age", &self.age)
            .field("timeout", &self.timeout())
            .field("remaining", &self.remaining())
            .field("context", &Json(&self.task.spec.context))
            .field("origin", &self.origin())
            .field("state", &self.state)
            .field("attempt", &self.attempt)
            .field("progress", &self.progress)
            .field("key", &self.key())
            .finish()
    }
}

/// Writes a line such as `upload #7 (for 1.2s, 40 % sending) {"user":"ada"}`.
impl fmt::Display for TaskInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} #{} (", self.name(), self.id())?;
        if let TaskState::Delayed | TaskState::Queued = self.state {
            write!(f, "{} ", self.state)?;
        }
        write!(f, "for {:.1?}", self.age)?;
        if let Some(progress) = &self.progress {
            write!(f, ", {progress}")?;
        }
        f.write_str(")")?;
        write_context(f, &self.task.spec.context)
    }
}

/// A task that ended. Cheap to clone. It serializes with all that its methods return; durations are seconds.
#[derive(Clone)]
pub struct FinishedTask {
    task: Arc<TaskRecord>,
    end: TaskEnd,
    progress: Option<Arc<TaskProgress>>,
}

impl FinishedTask {
    task_accessors!();

    /// Returns `None` while the task runs.
    pub(super) fn of(task: &Arc<TaskRecord>) -> Option<Self> {
        task.end().map(|end| Self { task: Arc::clone(task), end, progress: task.attempt_and_progress().1 })
    }

    /// Returns the task's outcome.
    #[must_use]
    pub fn outcome(&self) -> TaskOutcome {
        self.end.outcome
    }

    /// Returns the message of the error or panic, with its sources, if the task failed or panicked.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.end.error.as_deref()
    }

    /// Returns the timeout that was over, if the task timed out.
    #[must_use]
    pub fn limit(&self) -> Option<TimeoutKind> {
        self.end.limit
    }

    /// Returns how many attempts the task made: 1, unless it
    /// [retries](crate::BackgroundTaskManager::create_retrying_task); 0 if it never began.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.task.attempt()
    }

    /// Returns the progress that the task reported last, in its last attempt: how far a task got that failed or was
    /// cut off.
    #[must_use]
    pub fn progress(&self) -> Option<&TaskProgress> {
        self.progress.as_deref()
    }

    /// Returns the time from the task's spawn to its end.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.end.age()
    }
}

impl fmt::Debug for FinishedTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FinishedTask")
            .field("id", &self.id().0)
            .field("name", &self.name())
            .field("outcome", &self.end.outcome)
            .field("error", &self.error())
            .field("limit", &self.end.limit)
            .field("attempts", &self.attempts())
            .field("progress", &self.progress)
            .field("age", &self.end.age())
            .field("timeout", &self.timeout())
            .field("context", &Json(&self.task.spec.context))
            .field("origin", &self.origin())
            .field("key", &self.key())
            .finish()
    }
}

/// Writes a line such as `upload #7 (cancelled after 1.2s) {"user":"ada"}`.
impl fmt::Display for FinishedTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} #{} ({} after {:.1?})", self.name(), self.id(), self.end.outcome, self.end.age())?;
        write_context(f, &self.task.spec.context)
    }
}

impl Serialize for TaskInfo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename = "TaskInfo")]
        struct Fields<'a> {
            id: TaskId,
            name: &'a str,
            state: TaskState,
            attempt: u32,
            #[serde(with = "seconds")]
            age: Duration,
            #[serde(with = "seconds::optional")]
            timeout: Option<Duration>,
            #[serde(with = "seconds::optional")]
            remaining: Option<Duration>,
            progress: Option<&'a TaskProgress>,
            key: Option<&'a str>,
            origin: Option<&'a TaskOrigin>,
            context: Json<'a>,
        }
        let fields = Fields {
            id: self.id(),
            name: self.name(),
            state: self.state,
            attempt: self.attempt,
            age: self.age,
            timeout: self.timeout(),
            remaining: self.remaining(),
            progress: self.progress(),
            key: self.key(),
            origin: self.origin(),
            context: Json(&self.task.spec.context),
        };
        fields.serialize(serializer)
    }
}

impl Serialize for FinishedTask {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename = "FinishedTask")]
        struct Fields<'a> {
            id: TaskId,
            name: &'a str,
            outcome: TaskOutcome,
            error: Option<&'a str>,
            limit: Option<TimeoutKind>,
            attempts: u32,
            progress: Option<&'a TaskProgress>,
            #[serde(with = "seconds")]
            age: Duration,
            #[serde(with = "seconds::optional")]
            timeout: Option<Duration>,
            key: Option<&'a str>,
            origin: Option<&'a TaskOrigin>,
            context: Json<'a>,
        }
        let fields = Fields {
            id: self.id(),
            name: self.name(),
            outcome: self.end.outcome,
            error: self.error(),
            limit: self.end.limit,
            attempts: self.attempts(),
            progress: self.progress(),
            age: self.end.age(),
            timeout: self.timeout(),
            key: self.key(),
            origin: self.origin(),
            context: Json(&self.task.spec.context),
        };
        fields.serialize(serializer)
    }
}

fn write_context(f: &mut fmt::Formatter<'_>, fields: &Fields) -> fmt::Result {
    if fields.is_empty() { Ok(()) } else { write!(f, " {}", Json(fields)) }
}

/// Formats log fields as one JSON object, when a subscriber or a reader asks for it.
pub(super) struct Json<'a>(pub(super) &'a Fields);

impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, (key, value)) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{}:{value}", Value::from(&**key))?;
        }
        f.write_str("}")
    }
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (&**key, value)))
    }
}

impl fmt::Debug for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

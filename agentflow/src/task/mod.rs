//! Background tasks: work that outlives the call that started it, with an owner and a recorded outcome.
//!
//! A [`BackgroundTaskManager`] gives every task a name, an optional timeout, fields for the logs, and exactly one
//! [`TaskOutcome`]. It lists live and finished tasks, waits for them, cancels them, and closes within a time limit. It
//! needs a tokio runtime with its timer enabled, and no graph.
//!
//! ```
//! use std::time::Duration;
//! use agentflow::BackgroundTaskManager;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let tasks = BackgroundTaskManager::new();
//! tasks
//!     .create_task(async { println!("sent") })
//!     .name("send_notification")
//!     .timeout(Duration::from_secs(10))
//!     .context("user", "ada")
//!     .spawn()?;
//!
//! let report = tasks.close(Some(Duration::from_secs(30))).await;
//! assert_eq!(report.outcomes.completed, 1);
//! # Ok(())
//! # }
//! ```

// The public API, one concept a file. `error`, `event`, `id`, `info`, `observer`, `options`, `origin`, `outcome`,
// `output`, `progress`, `report` and `stats` are its vocabulary, which uses no other file of the API.
mod builder;
#[cfg(feature = "schedule")]
mod calendar;
mod context;
mod durable;
mod error;
mod event;
mod event_stream;
mod filter;
mod group;
mod handle;
mod id;
mod info;
mod manager;
mod observer;
mod options;
mod origin;
mod outcome;
mod output;
mod progress;
mod report;
mod stats;

// One task: its record, its work, and the future that runs it.
mod engine;
// All tasks of one manager: one mutex over the live and the finished ones.
mod registry;

#[doc(hidden)]
pub use builder::Retrying;
pub use builder::TaskBuilder;
#[cfg(feature = "schedule")]
pub use calendar::{Calendar, InvalidCalendar};
pub use context::TaskContext;
#[doc(hidden)]
pub use durable::DurableSink;
#[cfg(feature = "schedule")]
pub(crate) use durable::RegisteredSchedule;
pub(crate) use durable::{AttemptOutbox, Batch, TaskLimits, WorkerState};
pub use durable::{
    DurableTaskBuilder, DurableTaskContext, RegisteredTask, RunTask, Task, TaskArgs, TaskAttempt, TaskPolicy,
    TaskRegistry, UndecodableArgs,
};
pub(crate) use engine::{current::inherit_task, run_tasks::RunTasks};
pub use error::{SpawnError, TaskError};
pub use event::TaskEvent;
pub use event_stream::TaskEventStream;
pub use filter::TaskFilter;
pub use group::{GroupResult, TaskGroup};
pub use handle::TaskHandle;
pub use id::{InvalidTaskId, TaskId};
pub use info::{FinishedTask, TaskInfo, TaskState};
pub use manager::BackgroundTaskManager;
pub(crate) use observer::TaskObserver;
pub use options::{OnClose, OnDuplicateKey, OnFull, OnRunEnd, TaskManagerOptions};
pub use origin::TaskOrigin;
pub use outcome::{TaskOutcome, TimeoutKind};
pub use output::TaskOutput;
pub use progress::TaskProgress;
pub(crate) use report::MAX_PRINTED;
pub use report::{CancelReport, CloseReport, WaitTimeout};
pub use stats::{OutcomeCounts, TaskStats};
pub use tokio_util::sync::CancellationToken;

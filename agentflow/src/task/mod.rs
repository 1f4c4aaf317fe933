//! Background tasks: work that outlives the call that started it, and that somebody still answers for.
//!
//! A [`BackgroundTaskManager`] gives every task a name, an optional timeout, context for the logs, and exactly one
//! [`TaskOutcome`]; it says what runs now and what ended, waits for its tasks, cancels them, and closes within a
//! bound. It needs a tokio runtime with its timer enabled, and no graph.
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
//! assert_eq!(report.completed, 1);
//! # Ok(())
//! # }
//! ```

mod body;
mod builder;
mod close;
mod context;
mod events;
mod handle;
mod info;
mod log;
mod manager;
mod metrics;
#[cfg(all(test, agentflow_model))]
mod model;
mod options;
mod outcome;
mod owner;
mod queue;
mod record;
mod registry;
mod supervise;
mod sync;
mod wait;

#[doc(hidden)]
pub use builder::Retrying;
pub use builder::{OnDuplicateKey, SpawnError, TaskBuilder};
pub use close::CloseReport;
pub use context::TaskContext;
pub use events::{TaskEvent, TaskEventStream};
pub use handle::TaskHandle;
pub(crate) use info::Watch;
pub use info::{FinishedTask, TaskId, TaskInfo, TaskOrigin, TaskProgress, TaskState, TaskStats};
pub use manager::BackgroundTaskManager;
pub use options::{OnFull, TaskManagerOptions};
pub use outcome::{TaskError, TaskOutcome, TaskOutput, TimeoutKind};
pub use owner::OnRunEnd;
pub(crate) use owner::RunTasks;
pub use tokio_util::sync::CancellationToken;
pub use wait::{CancelReport, WaitTimeout};

//! [`TaskEvent`]: something that happened to a task.

use std::{sync::Arc, time::Duration};

use serde::{Serialize, Serializer};

use super::info::{FinishedTask, TaskInfo};
use crate::seconds;

/// Something that happened to a task.
///
/// The events of a manager arrive in the order in which they happened. Those of one task are: spawned, started, its
/// attempts and its progress, ended. So counting by events never finds more running tasks than
/// [`max_running`](crate::task::TaskManagerOptions::max_running) allows, and when a task's end arrives, its handle is
/// ready and the counters contain it. Cheap to clone.
///
/// In JSON the kind is the field `type`, and the task is the field `task`:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let tasks = agentflow::BackgroundTaskManager::new();
/// let mut events = tasks.events();
/// tasks.create_task(async {}).name("upload").spawn()?;
/// let event = serde_json::to_value(events.next().await)?;
/// assert_eq!((&event["type"], &event["task"]["name"]), (&"spawned".into(), &"upload".into()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TaskEvent {
    /// The task was accepted. It may be delayed or queued.
    Spawned(TaskInfo),
    /// The task began to run.
    Started(TaskInfo),
    /// An attempt failed, and there will be another one.
    #[non_exhaustive]
    AttemptFailed {
        /// The task.
        task: TaskInfo,
        /// The number of the attempt, from 1.
        attempt: u32,
        /// The message of the attempt's error, with its sources.
        error: Arc<str>,
        /// The pause before the next attempt.
        retry_in: Duration,
    },
    /// The task reported its [progress](TaskInfo::progress).
    Progress(TaskInfo),
    /// The task ended.
    Ended(FinishedTask),
    /// The stream's reader was too slow, and missed this many events.
    Missed(u64),
}

impl Serialize for TaskEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(tag = "type", rename_all = "snake_case", rename = "TaskEvent")]
        enum Tagged<'a> {
            Spawned {
                task: &'a TaskInfo,
            },
            Started {
                task: &'a TaskInfo,
            },
            AttemptFailed {
                task: &'a TaskInfo,
                attempt: u32,
                error: &'a str,
                #[serde(with = "seconds")]
                retry_in: Duration,
            },
            Progress {
                task: &'a TaskInfo,
            },
            Ended {
                task: &'a FinishedTask,
            },
            Missed {
                count: u64,
            },
        }
        let tagged = match self {
            Self::Spawned(task) => Tagged::Spawned { task },
            Self::Started(task) => Tagged::Started { task },
            Self::AttemptFailed { task, attempt, error, retry_in } => {
                Tagged::AttemptFailed { task, attempt: *attempt, error, retry_in: *retry_in }
            }
            Self::Progress(task) => Tagged::Progress { task },
            Self::Ended(task) => Tagged::Ended { task },
            Self::Missed(count) => Tagged::Missed { count: *count },
        };
        tagged.serialize(serializer)
    }
}

//! A graph runtime for agent services.

mod run_id;
mod task;

pub use run_id::{InvalidRunId, RunId};
pub use task::{
    BackgroundTaskManager, CancelReport, CancellationToken, CloseReport, SpawnError, StillRunning,
    TaskBuilder, TaskContext, TaskEnd, TaskError, TaskHandle, TaskId, TaskInfo, TaskManagerOptions,
    TaskOrigin, TaskOutcome, TaskOutput, TaskState, TaskStats,
};

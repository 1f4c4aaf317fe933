//! One task: its record, its work, and the future that runs the work and decides how the task ends.

pub(super) mod ancestors;
pub(super) mod current;
mod end;
pub(super) mod log;
pub(super) mod metrics;
#[cfg(all(test, agentflow_model))]
mod model;
pub(super) mod run_tasks;
pub(super) mod supervisor;
pub(super) mod sync;
pub(super) mod task;
pub(super) mod work;

//! Durable tasks: tasks that are stored with their arguments before they run, and run again if the process dies.
//!
//! A task is a type, [`Task`], with a stored name and arguments. [`DurableTaskBuilder`] makes a [`NewTask`] of it, which
//! the [`DurableSink`] of the manager takes. An app [registers](TaskRegistry) the functions that it runs by these names.

mod builder;
mod context;
mod definition;
mod outbox;
mod policy;
mod registry;
mod run_task;
#[cfg(feature = "schedule")]
mod schedule;
mod worker_state;

pub(super) use builder::DurableSpawner;
pub use builder::DurableTaskBuilder;
pub use context::{DurableTaskContext, TaskAttempt};
pub use definition::{Task, TaskArgs};
pub(crate) use outbox::AttemptOutbox;
pub use outbox::DurableSink;
pub use policy::TaskPolicy;
pub use registry::{RegisteredTask, TaskRegistry, UndecodableArgs};
pub use run_task::RunTask;
#[cfg(feature = "schedule")]
pub(crate) use schedule::RegisteredSchedule;
pub(crate) use worker_state::{Batch, TaskLimits, WorkerState};

//! Durable tasks of an app: they are stored, claimed and run; schedules make them; callers look at them.

// What an app needs to store and run tasks: below the graphs that are ready to run.
mod attempt;
#[cfg(feature = "schedule")]
mod firing;
mod sink;
mod worker;

// The public API, on such graphs.
mod items;
#[cfg(feature = "schedule")]
mod schedule;
mod tasks;

pub use items::{Item, Items};
#[cfg(feature = "schedule")]
pub use schedule::{Schedule, ScheduleError, ScheduleInfo};
pub(crate) use sink::StoreSink;
pub use tasks::{DurableTasks, StuckTask};
pub(crate) use worker::start_worker;

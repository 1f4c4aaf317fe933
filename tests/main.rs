//! Behaviour of compiled graphs and of the task manager, a file per feature.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test says what it does in its name, and fails by panicking")]

mod messages;
mod run_config;
mod state_updates;
mod support;
mod task_cancellation;
mod task_close;
mod task_info;
mod task_logging;
mod task_model;
mod task_outcomes;
mod task_timeouts;
mod task_waiting;

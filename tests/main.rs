//! Behaviour of compiled graphs and of the task manager, a file per feature.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test says what it does in its name, and fails by panicking")]

mod builder_flow;
mod concurrency;
mod decisions;
mod groups;
mod messages;
mod node_options;
mod pictures;
mod run_config;
mod state_updates;
mod streams;
mod subgraphs;
mod support;
mod task_cancellation;
mod task_close;
mod task_info;
mod task_logging;
mod task_model;
mod task_outcomes;
mod task_timeouts;
mod task_waiting;

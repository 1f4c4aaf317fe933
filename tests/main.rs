//! Behaviour of compiled graphs and of the task manager, a file per feature.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test's name documents it, and a test fails by panicking")]

mod steps;
mod support;

mod builder;
mod builder_flow;
mod commits;
mod concurrency;
mod decisions;
mod erased_graphs;
mod groups;
mod invoke_from;
mod isolation;
mod messages;
mod node_options;
mod nodes;
mod pictures;
mod promises;
mod random_graphs;
mod readme;
mod run_config;
mod run_errors;
mod run_faults;
mod run_limits;
mod run_metrics;
mod shutdown;
mod state_updates;
mod streams;
mod subgraphs;
mod svg;
mod task_cancellation;
mod task_capacity;
mod task_close;
mod task_events;
mod task_groups;
mod task_history;
mod task_info;
mod task_json;
mod task_keys;
mod task_logging;
mod task_metrics;
mod task_model;
mod task_outcomes;
mod task_owner;
mod task_progress;
mod task_queue_model;
mod task_reports_agree;
mod task_retries;
mod task_storms;
mod task_timeouts;
mod task_waiting;
mod task_watching;
mod tracing_spans;

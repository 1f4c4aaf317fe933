//! The guides of `docs/`: each code block in them is a doctest.

#![cfg(doctest)]

#[doc = include_str!("../../docs/agents-from-config.md")]
mod agents_from_config {}

#[doc = include_str!("../../docs/debounce.md")]
mod debounce {}

#[doc = include_str!("../../docs/durable-tasks.md")]
mod durable_tasks {}

#[doc = include_str!("../../docs/durability.md")]
mod durability {}

#[doc = include_str!("../../docs/errors.md")]
mod errors {}

#[doc = include_str!("../../docs/flow.md")]
mod flow {}

#[doc = include_str!("../../docs/groups.md")]
mod groups {}

#[doc = include_str!("../../docs/observability.md")]
mod observability {}

#[doc = include_str!("../../docs/persistence.md")]
mod persistence {}

#[doc = include_str!("../../docs/queue-consumers.md")]
mod queue_consumers {}

#[doc = include_str!("../../docs/state.md")]
mod state {}

#[doc = include_str!("../../docs/streaming-http.md")]
mod streaming_http {}

#[doc = include_str!("../../docs/tasks.md")]
mod tasks {}

#[doc = include_str!("../../docs/testing.md")]
mod testing {}

#[doc = include_str!("../../docs/timeouts.md")]
mod timeouts {}

#[doc = include_str!("../../docs/coming-from-python.md")]
mod coming_from_python {}

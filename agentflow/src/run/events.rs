//! [`EventWriter`]: events that a node writes itself.

use serde::Serialize;

/// Writes custom events from inside a node: progress, tokens, whatever the reader of the run is to see.
#[derive(Debug)]
pub struct EventWriter(());

impl EventWriter {
    pub(super) fn new() -> Self {
        Self(())
    }

    /// Writes one event: a debug event in the node's span. `data` is looked at only where somebody listens.
    ///
    /// # Cancel safety
    ///
    /// Safe to drop.
    #[allow(
        clippy::unused_async,
        reason = "who reads the events may be slower than who writes them"
    )]
    pub async fn emit(&self, name: &str, data: impl Serialize) {
        if tracing::enabled!(tracing::Level::DEBUG) {
            let data = serde_json::to_value(data).unwrap_or_else(|error| format!("({error})").into());
            tracing::debug!(name, %data, "custom event");
        }
    }
}

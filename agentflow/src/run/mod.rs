//! Runs: the executor walks a compiled graph from node to node.

mod attempts;
mod commit_hook;
pub(crate) mod error;
mod event;
pub(crate) mod event_channel;
pub(crate) mod executor;
mod group;
mod interrupt;
pub(crate) mod invocation;
mod join_all;
mod last_node;
mod lifecycle;
mod loops;
mod metrics;
mod scope;
mod start;
mod stream;
pub(crate) mod tracker;

use std::sync::Arc;

use crate::{graph::app::App, state::State};
use event_channel::Sink;

pub use crate::{
    config::{ConfigValueError, RunConfig},
    run_id::{InvalidRunId, RunId},
};
pub use error::{LastState, NodeFailure, RunError, RunErrorKind};
pub use event::{Event, EventKind};
pub use event_channel::EventWriter;
pub use stream::RunStream;

/// Runs the graph once, from this node or else from the graph's entry. Every run has its own state, token and id, and
/// shares the app's manager and services.
pub(crate) async fn run<S: State, C: Send + Sync + 'static>(
    app: &App<S, C>,
    start: Option<&str>,
    state: S,
    config: RunConfig,
) -> Result<S, RunError> {
    let (run_id, config) = with_run_id(config);
    let starter = app.manager.current_task();
    lifecycle::run(app, start, state, run_id, &config, starter, &Sink::default()).await
}

/// Runs the graph once and returns a stream of its events, which drives the run.
pub(crate) fn stream<S: State, C: Send + Sync + 'static>(
    app: Arc<App<S, C>>,
    state: S,
    config: RunConfig,
) -> RunStream<S> {
    let (run_id, config) = with_run_id(config);
    let (sink, buffer) = Sink::buffered(run_id);
    // Taken here, because another task may read the stream.
    let starter = app.manager.current_task();
    let run = Box::pin(async move { lifecycle::run(&app, None, state, run_id, &config, starter, &sink).await });
    RunStream::new(buffer, run)
}

/// Returns the id of the run, a new one unless the caller chose it, and the config with that id.
fn with_run_id(config: RunConfig) -> (RunId, RunConfig) {
    let run_id = config.run_id().unwrap_or_else(RunId::new);
    (run_id, config.with_run_id(run_id))
}

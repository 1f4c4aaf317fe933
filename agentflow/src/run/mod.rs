//! Runs: the executor walks a compiled graph from node to node.

// The vocabulary of a run, which nodes use: it knows neither nodes nor graphs.
pub(crate) mod branch_log;
pub(crate) mod commit_mark;
pub(crate) mod error;
mod event;
pub(crate) mod event_channel;
mod interrupt;
pub(crate) mod invocation;
mod join_all;
mod last_node;
mod metrics;
pub(crate) mod path_name;
pub(crate) mod recorder;
mod scope;
mod step_id;
mod stream;
pub(crate) mod tracker;

// The execution of a plan.
mod attempts;
mod commit_hook;
mod driver;
pub(crate) mod executor;
mod fork;
pub(crate) mod group;
pub(crate) mod lifecycle;
mod loops;
mod plain_branches;
pub(crate) mod progress;
mod recorded_group;
mod recording;
mod start;
mod transition;

use std::sync::Arc;

use crate::{graph::app::App, state::State};
use driver::Refused;
use event_channel::Sink;
use invocation::Arrival;
use lifecycle::NewRun;
use progress::Progress;
use start::start_step;

pub use crate::{
    config::{ConfigValueError, RunConfig},
    run_id::{InvalidRunId, RunId},
};
pub use error::{AllFailed, LastState, NodeFailure, RunError, RunErrorKind};
pub use event::{Event, EventKind};
pub use event_channel::EventWriter;
pub use step_id::StepId;
pub use stream::{RunEnd, RunEvents, RunStream};

/// Runs the graph once, from this node or else from the graph's entry, which receives the arrival. Every run has its own state, token and id, and
/// shares the app's manager and services.
pub(crate) async fn run<S: State, C: Send + Sync + 'static>(
    app: &App<S, C>,
    start: Option<&str>,
    arrival: Arrival<'_>,
    mut state: S,
    config: RunConfig,
) -> Result<S, RunError> {
    let mut new = NewRun::admit(app, &*app.runs, config);
    let sink = Sink::default();
    let entry = match start_step(&app.plan, start) {
        Ok(entry) => entry,
        Err(kind) => return Err(new.refuse(app, state, kind, &sink)),
    };
    let progress = Progress::new(entry);
    match lifecycle::run(app, &mut state, &progress, arrival, &mut new, &sink).await {
        Ok(()) => Ok(state),
        Err(failure) => Err(failure.into_error(new.id, state)),
    }
}

/// Runs the graph once in a task of its own, and returns a stream of the run's events.
pub(crate) fn stream<S: State, C: Send + Sync + 'static>(
    app: Arc<App<S, C>>,
    state: S,
    config: RunConfig,
) -> RunStream<S> {
    driver::start(app, state, config).unwrap_or_else(|Refused { error, events }| RunStream::refused(error, events))
}

/// Runs the graph as [`stream`] does, and returns the error instead if the run is refused.
pub(crate) fn try_stream<S: State, C: Send + Sync + 'static>(
    app: Arc<App<S, C>>,
    state: S,
    config: RunConfig,
) -> Result<RunStream<S>, RunError> {
    driver::start(app, state, config).map_err(|refused| refused.error)
}

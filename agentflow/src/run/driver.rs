//! [`start`]: a streamed run in a tokio task of its own.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use tokio::{runtime::Handle, sync::oneshot};

use super::{
    error::{LastState, NodeFailure, RunError, RunErrorKind},
    event::EventKind,
    event_channel::{Buffer, Sink},
    lifecycle::{self, NewRun},
    stream::RunStream,
};
use crate::{
    config::RunConfig,
    error::{NodeError, text_of},
    graph::app::App,
    run_id::RunId,
    state::State,
    task::inherit_task,
};

/// A run that was refused: its error, and its events.
pub(super) struct Refused {
    pub(super) error: RunError,
    pub(super) events: Arc<Buffer>,
}

/// Starts a task that runs the graph once. The run is a part of the caller's span and background task, as `invoke` is.
///
/// The task runs where the caller runs, like the future of `invoke`; outside of a runtime, on that of the app's tasks.
pub(super) fn start<S: State, C: Send + Sync + 'static>(
    app: Arc<App<S, C>>,
    state: S,
    config: RunConfig,
) -> Result<RunStream<S>, Refused> {
    let mut new = NewRun::admit(&app, Arc::clone(&app.runs), config);
    let (sink, events) = Sink::buffered(new.id);
    if !new.is_accepted() {
        return Err(Refused { error: new.refuse(&app, state, RunErrorKind::Closed, &sink), events });
    }
    let Some(runtime) = Handle::try_current().ok().or_else(|| app.manager.runtime()) else {
        return Err(Refused { error: new.refuse(&app, state, RunErrorKind::NoRuntime, &sink), events });
    };
    let (sender, result) = oneshot::channel();
    let stream = RunStream::new(events, new.attach_reader(), result);
    let mut end = End { run: new.id, sink, state: Some(state), result: Some(sender) };
    let driver = async move {
        let Some(state) = end.state.take() else { return };
        let run = AssertUnwindSafe(lifecycle::run(&app, state, &mut new, &end.sink));
        match run.catch_unwind().await {
            Ok(result) => end.send(result),
            // The panics of nodes are caught earlier; this one came from a tracing subscriber.
            Err(panic) => {
                let entry = Arc::clone(&app.plan.step(app.plan.entry).name);
                end.fail(RunErrorKind::Node(NodeFailure::new(entry, NodeError::panicked(panic))));
            }
        }
    };
    runtime.spawn(inherit_task(driver));
    Ok(stream)
}

/// The end of a run. It reaches the stream even if the runtime drops the run.
struct End<S: State> {
    run: RunId,
    sink: Sink,
    /// The state, until the run begins.
    state: Option<S>,
    result: Option<oneshot::Sender<Result<S, RunError>>>,
}

impl<S: State> End<S> {
    fn send(&mut self, result: Result<S, RunError>) {
        if let Some(sender) = self.result.take() {
            // Without a receiver the result is dropped here: the stream is gone.
            drop(sender.send(result));
        }
    }

    /// Sends the error of a run that did not write its last event.
    fn fail(&mut self, kind: RunErrorKind) {
        let error = match self.state.take() {
            Some(state) => RunError::new(self.run, kind, LastState::Committed(state)),
            None => RunError::without_state(self.run, kind),
        };
        self.sink.push(|| EventKind::RunEnded { error: Some(text_of(&error)) });
        self.send(Err(error));
    }
}

impl<S: State> Drop for End<S> {
    fn drop(&mut self) {
        if self.result.is_some() {
            self.fail(RunErrorKind::NoRuntime);
        }
    }
}

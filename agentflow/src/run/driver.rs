//! [`start`]: a streamed run in a tokio task of its own.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use tokio::{runtime::Handle, sync::oneshot};

use super::{
    error::{Failure, NodeFailure, RunError, RunErrorKind},
    event::EventKind,
    event_channel::{Buffer, Sink},
    invocation::Arrival,
    lifecycle::{self, NewRun, log},
    progress::Progress,
    stream::RunStream,
};
use crate::{
    config::RunConfig,
    error::NodeError,
    graph::app::App,
    panics::{catch_panic, text_of},
    run_id::RunId,
    span::GuardedSpan,
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
    sink.push(|| EventKind::RunStarted { graph: app.name.to_string() });
    if !new.is_accepted() {
        return Err(Refused { error: new.refuse(&app, state, RunErrorKind::Closed, &sink), events });
    }
    let Some(runtime) = Handle::try_current().ok().or_else(|| app.manager.runtime()) else {
        return Err(Refused { error: new.refuse(&app, state, RunErrorKind::NoRuntime, &sink), events });
    };
    let (sender, result) = oneshot::channel();
    let stream = RunStream::new(events, new.attach_reader(), result);
    let progress = Progress::new(app.plan.entry);
    let mut end = End { run: new.id, span: new.span.clone(), sink, progress, open: Some((state, sender)) };
    let driver = async move {
        let Some((state, _)) = &mut end.open else { return };
        let run = AssertUnwindSafe(lifecycle::run(&app, state, &end.progress, Arrival::default(), &mut new, &end.sink));
        match run.catch_unwind().await {
            Ok(ended) => end.send(ended),
            // The panics of nodes are caught earlier; this one came from a tracing subscriber.
            Err(panic) => {
                let entry = Arc::clone(&app.plan.step(app.plan.entry).name);
                end.fail(RunErrorKind::Node(NodeFailure::new(entry, NodeError::panicked(panic))), log);
            }
        }
    };
    runtime.spawn(inherit_task(driver));
    Ok(stream)
}

/// The end of a run. It reaches the stream, with the state, even if the runtime drops the run.
struct End<S: State> {
    run: RunId,
    span: GuardedSpan,
    sink: Sink,
    progress: Progress,
    /// The state, and the sender of the end, until that is sent.
    open: Option<(S, oneshot::Sender<Result<S, RunError>>)>,
}

impl<S: State> End<S> {
    fn send(&mut self, ended: Result<(), Box<Failure>>) {
        if let Some((state, sender)) = self.open.take() {
            let result = match ended {
                Ok(()) => Ok(state),
                Err(failure) => Err(failure.into_error(self.run, state)),
            };
            // Without a receiver the result is dropped here: the stream is gone.
            catch_panic(|| drop(sender.send(result)));
        }
    }

    /// Sends the error of a run that did not write its last event.
    fn fail(&mut self, kind: RunErrorKind, log: impl FnOnce(&Failure, &Sink)) {
        let failure = Failure::new(kind, self.progress.commit.is_committed());
        catch_panic(|| self.span.in_scope(|| log(&failure, &self.sink)));
        self.sink.push(|| EventKind::RunEnded { error: Some(text_of(&failure)) });
        self.send(Err(failure));
    }
}

impl<S: State> Drop for End<S> {
    fn drop(&mut self) {
        if self.open.is_some() {
            let log = |error: &Failure, _: &Sink| tracing::warn!(%error, "run dropped by its runtime");
            self.fail(RunErrorKind::NoRuntime, log);
        }
    }
}

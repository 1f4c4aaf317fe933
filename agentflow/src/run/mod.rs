//! The executor: walks a compiled graph from node to node.

mod error;
mod events;
mod interrupt;

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::Poll,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

pub use error::{LastState, RunError, RunErrorKind};
pub use events::EventWriter;
use interrupt::{Interrupt, Interrupts};

use crate::{
    NodeContext, NodeError, RunConfig, RunId, State,
    error::discard,
    graph::{App, Next},
};

/// Runs the graph once. Every run has its own state, token and id; it shares the app's manager and context.
pub(crate) async fn run<S: State, C: Send + Sync + 'static>(
    app: &App<S, C>,
    state: S,
    config: RunConfig,
) -> Result<S, RunError> {
    let run_id = config.run_id().unwrap_or_else(RunId::new);
    let config = config.with_run_id(run_id);
    let span = tracing::info_span!(
        "agentflow.run",
        graph = &*app.name,
        run = %run_id,
        thread = config.thread_id(),
        user = config.user_id(),
    );
    let Some(_ticket) = app.runs.enter(run_id) else {
        let error = RunError::new(run_id, RunErrorKind::Closed, LastState::Committed(state));
        span.in_scope(|| tracing::warn!(error = %error, "run rejected"));
        return Err(error);
    };
    async {
        let ended = walk(app, run_id, state, &config).await;
        if let Err(error) = &ended {
            tracing::error!(error = %error, "run failed");
        }
        ended
    }
    .instrument(span)
    .await
}

async fn walk<S: State, C: Send + Sync + 'static>(
    app: &App<S, C>,
    run_id: RunId,
    mut state: S,
    config: &RunConfig,
) -> Result<S, RunError> {
    let mut cancel = RunToken::new(config);
    let token = cancel.token.clone();
    let mut interrupts = Interrupts::new(&token, app.runs.cut_off(), config.run_timeout());
    let events = EventWriter::new();
    let mut at = app.plan.entry;
    let mut steps_left = app.recursion_limit;
    loop {
        let step = &app.plan.steps[at];
        let refused = match steps_left.checked_sub(1) {
            None => Some(RunErrorKind::RecursionLimit {
                limit: app.recursion_limit,
                node: Arc::clone(&step.name),
            }),
            Some(left) => {
                steps_left = left;
                interrupts
                    .check()
                    .map(|interrupt| interrupt.into_error(&step.name))
            }
        };
        if let Some(kind) = refused {
            return Err(RunError::new(run_id, kind, LastState::Committed(state)));
        }

        let started = Instant::now();
        let cx = NodeContext {
            state: &mut state,
            config,
            context: &app.context,
            cancel: &token,
            events: &events,
            run_id,
            node: &step.name,
            manager: &app.manager,
        };
        let span = tracing::info_span!("agentflow.node", node = &*step.name);
        let stopped = match attempt(|| step.run(cx), &mut interrupts).instrument(span).await {
            Ok(Ok(())) => None,
            Ok(Err(source)) => Some(RunErrorKind::Node {
                node: Arc::clone(&step.name),
                attempt: 1,
                elapsed: started.elapsed(),
                source,
            }),
            Err(interrupt) => Some(interrupt.into_error(&step.name)),
        };
        if let Some(kind) = stopped {
            let last = if step.in_place {
                LastState::Uncommitted(state)
            } else {
                LastState::Committed(state)
            };
            return Err(RunError::new(run_id, kind, last));
        }

        match app.plan.next[at] {
            Next::To(next) => at = next,
            Next::End => {
                cancel.done = true;
                return Ok(state);
            }
        }
    }
}

/// Polls a node until it ends or the run is interrupted; a panic is the node's error.
async fn attempt<'a>(
    start: impl FnOnce() -> Pin<Box<dyn Future<Output = Result<(), NodeError>> + Send + 'a>>,
    interrupts: &mut Interrupts<'_>,
) -> Result<Result<(), NodeError>, Interrupt> {
    // A hand-written node may do some of its work before it gives a future.
    let mut node = match catch_unwind(AssertUnwindSafe(start)) {
        Ok(node) => node,
        Err(panic) => return Ok(Err(NodeError::panicked(panic))),
    };
    let ended = poll_fn(|cx| {
        // A node that panicked is never polled again, so nobody sees what the panic left half done in it.
        match catch_unwind(AssertUnwindSafe(|| node.as_mut().poll(cx))) {
            Ok(Poll::Ready(result)) => Poll::Ready(Ok(result)),
            Err(panic) => Poll::Ready(Ok(Err(NodeError::panicked(panic)))),
            Ok(Poll::Pending) => interrupts.poll(cx).map(Err),
        }
    })
    .await;
    // A destructor of the node's that panics must not take the run's own error away.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(node))) {
        discard(panic);
    }
    ended
}

/// The run's token: cancelled with the caller's, and when the run ends in any way but at `END`, so that what a node
/// started with the token ends with the run.
struct RunToken {
    token: CancellationToken,
    done: bool,
}

impl RunToken {
    fn new(config: &RunConfig) -> Self {
        let token = config
            .cancellation_token()
            .map_or_else(CancellationToken::new, CancellationToken::child_token);
        Self { token, done: false }
    }
}

impl Drop for RunToken {
    fn drop(&mut self) {
        if !self.done {
            self.token.cancel();
        }
    }
}

//! [`RunStream`]: a run as a stream of its events.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;
use futures_util::StreamExt;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{
    error::{RunError, RunErrorKind},
    event::Event,
    event_channel::Buffer,
};
use crate::error::catch_panic;

/// A run as a stream of its events.
///
/// The run has a tokio task of its own and begins without its reader. While 64 events are unread it waits before the next
/// step, and in [`EventWriter::emit`](super::EventWriter::emit), until half of them are read. This time is part of its
/// [`run_timeout`](crate::RunConfig::with_run_timeout), and of no timeout of a node.
///
/// Dropping the stream cancels the run: its node is dropped where it awaits, and no further node starts.
///
/// The type implements [`Stream`] for use with combinators; [`next`](Self::next) and [`finish`](Self::finish) need no
/// other crate.
///
/// ```
/// use agentflow::{AgentState, EventWriter, Message, RunConfig, graph, node, run::EventKind};
///
/// #[node]
/// async fn speak(state: &mut AgentState, events: &EventWriter) {
///     for token in ["hel", "lo"] {
///         events.emit("token", token).await;
///     }
///     state.context.push(Message::assistant("hello"));
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), agentflow::RunError> {
/// let app = graph! { speak -> END };
/// let mut run = app.stream(AgentState::default(), RunConfig::new());
/// let mut tokens = String::new();
/// while let Some(event) = run.next().await {
///     if let EventKind::Custom { data, .. } = event.kind {
///         tokens += data.as_str().unwrap_or_default();
///     }
/// }
/// let state = run.finish().await?;
/// assert_eq!(tokens, state.context[0].text());
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping the stream cancels the run"]
pub struct RunStream<S> {
    reader: Reader,
    result: oneshot::Receiver<Result<S, RunError>>,
}

/// The reading end of the channel. When it is dropped before the end of the run, it cancels the run.
struct Reader {
    buffer: Arc<Buffer>,
    batch: VecDeque<Event>,
    run: CancellationToken,
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Background tasks of the run may outlive the reader and continue to write.
        if self.buffer.close() {
            // Cancelling wakes the futures that wait for the token, and their wakers may be the user's.
            catch_panic(|| self.run.cancel());
        }
    }
}

impl<S> RunStream<S> {
    /// Creates the stream of a run that ends with `result`. The token cancels the run.
    pub(super) fn new(
        buffer: Arc<Buffer>,
        run: CancellationToken,
        result: oneshot::Receiver<Result<S, RunError>>,
    ) -> Self {
        Self { reader: Reader { buffer, batch: VecDeque::new(), run }, result }
    }

    /// Creates the stream of a run that did not begin.
    pub(super) fn refused(error: RunError, buffer: Arc<Buffer>) -> Self {
        let (sender, result) = oneshot::channel();
        drop(sender.send(Err(error)));
        Self::new(buffer, CancellationToken::new(), result)
    }

    /// Returns the next event, or `None` when the run is over.
    ///
    /// # Cancel safety
    ///
    /// Safe to drop: no event is lost.
    pub async fn next(&mut self) -> Option<Event> {
        StreamExt::next(self).await
    }

    /// Waits for the end of the run, discards the remaining events, and returns the state.
    ///
    /// # Errors
    ///
    /// The same as for [`invoke`](crate::CompiledGraph::invoke), and [`RunErrorKind::NoRuntime`] if the run was started
    /// outside of a tokio runtime, or dropped by its runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the run.
    pub async fn finish(mut self) -> Result<S, RunError> {
        while self.next().await.is_some() {}
        let run_id = self.reader.buffer.run;
        // The task of the run sends the result, even if its runtime drops it.
        self.result.await.unwrap_or_else(|_| Err(RunError::without_state(run_id, RunErrorKind::NoRuntime)))
    }
}

impl<S> Stream for RunStream<S> {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let Reader { buffer, batch, .. } = &mut self.reader;
        buffer.poll_next(batch, cx)
    }
}

impl<S> fmt::Debug for RunStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunStream").field("run", &self.reader.buffer.run).finish_non_exhaustive()
    }
}

//! [`RunStream`]: a run as a stream of its events.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;
use futures_util::{StreamExt, future::BoxFuture};

use super::{error::RunError, event::Event, event_channel::Buffer};

/// A run as a stream of its events. Reading the stream drives the run.
///
/// The run waits while 64 events are unread. Dropping the stream cancels the run. The type implements [`Stream`] for use
/// with combinators; [`next`](Self::next) and [`finish`](Self::finish) need no other crate.
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
#[must_use = "nothing runs until the stream is read"]
pub struct RunStream<S> {
    reader: Reader,
    run: Run<S>,
}

/// The reading end of the channel. It closes the channel when dropped, because background tasks of the run may outlive the
/// reader and continue to write.
struct Reader(Arc<Buffer>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.close();
    }
}

enum Run<S> {
    Running(BoxFuture<'static, Result<S, RunError>>),
    Ended(Box<Result<S, RunError>>),
}

impl<S> RunStream<S> {
    pub(super) fn new(buffer: Arc<Buffer>, run: BoxFuture<'static, Result<S, RunError>>) -> Self {
        Self { reader: Reader(buffer), run: Run::Running(run) }
    }

    /// Returns the next event, or `None` when the run is over.
    ///
    /// # Cancel safety
    ///
    /// Safe to drop: no event is lost, and the next call continues the run.
    pub async fn next(&mut self) -> Option<Event> {
        StreamExt::next(self).await
    }

    /// Runs to the end, discards the remaining events, and returns the state.
    ///
    /// # Errors
    ///
    /// The same as for [`invoke`](crate::CompiledGraph::invoke).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the run.
    pub async fn finish(mut self) -> Result<S, RunError> {
        while self.next().await.is_some() {}
        match self.run {
            Run::Running(run) => run.await,
            Run::Ended(result) => *result,
        }
    }
}

impl<S> Stream for RunStream<S> {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        loop {
            if let Poll::Ready(event) = self.reader.0.poll_pop(cx) {
                return Poll::Ready(Some(event));
            }
            let Run::Running(run) = &mut self.run else {
                return Poll::Ready(None);
            };
            match run.as_mut().poll(cx) {
                Poll::Ready(result) => self.run = Run::Ended(Box::new(result)),
                // The run may have written events before it returned `Pending`.
                Poll::Pending => return self.reader.0.poll_pop(cx).map(Some),
            }
        }
    }
}

impl<S> fmt::Debug for RunStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_over = matches!(self.run, Run::Ended(_));
        f.debug_struct("RunStream").field("is_over", &is_over).finish_non_exhaustive()
    }
}

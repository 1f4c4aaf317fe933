//! [`RunStream`]: a run as a stream of its events.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{
    error::{RunError, RunErrorKind},
    event::Event,
    event_channel::Buffer,
};
use crate::{panics::catch_panic, run_id::RunId};

/// A run as a stream of its events.
///
/// The run has a tokio task of its own and begins without its reader. While 64 events are unread it waits before the next
/// step, and in [`EventWriter::emit`](super::EventWriter::emit), until half of them are read. This time is part of its
/// [`run_timeout`](crate::RunConfig::with_run_timeout), and of no timeout of a node.
///
/// Dropping the stream cancels the run: its node is dropped where it awaits, and no further node starts.
///
/// The type implements [`Stream`] for use with combinators; [`next`](Self::next) and [`finish`](Self::finish) need no
/// other crate. [`split`](Self::split) separates the events from the end, which has the state.
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
    events: RunEvents,
    end: RunEnd<S>,
}

/// The events of a run, made by [`RunStream::split`]. Dropping them cancels the run.
#[must_use = "dropping the events cancels the run"]
pub struct RunEvents {
    buffer: Arc<Buffer>,
    /// The events that were taken from the buffer.
    batch: VecDeque<Event>,
    run: CancellationToken,
}

/// The end of a run, made by [`RunStream::split`]: a future of the state or the error. Dropping it drops the state, and
/// does not end the run.
///
/// # Cancel safety
///
/// Safe to drop where `&mut end` is awaited: the next await continues.
#[must_use = "the state of the run is dropped with its end"]
pub struct RunEnd<S> {
    run_id: RunId,
    result: oneshot::Receiver<Result<S, RunError>>,
}

impl<S> RunStream<S> {
    /// Creates the stream of a run that ends with `result`. The token cancels the run.
    pub(crate) fn new(
        buffer: Arc<Buffer>,
        run: CancellationToken,
        result: oneshot::Receiver<Result<S, RunError>>,
    ) -> Self {
        let end = RunEnd { run_id: buffer.run, result };
        Self { events: RunEvents { buffer, batch: VecDeque::new(), run }, end }
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
        self.events.next().await
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
    pub async fn finish(self) -> Result<S, RunError> {
        let (mut events, end) = self.split();
        while events.next().await.is_some() {}
        end.await
    }

    /// Splits the run into its events, for a response that owns them, and its end, which has the state.
    ///
    /// The run waits while its events are unread: read them, or drop them, while another task awaits the end. If the
    /// events are dropped before the run is over, the end is [`RunErrorKind::Cancelled`], and has the state as it was.
    ///
    /// ```
    /// use agentflow::{AgentState, Message, RunConfig, graph, node};
    ///
    /// #[node]
    /// async fn answer(state: &mut AgentState) {
    ///     state.context.push(Message::assistant("hello"));
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let app = graph! { answer -> END };
    /// let (mut events, end) = app.stream(AgentState::from_user("hi"), RunConfig::new()).split();
    /// let saved = tokio::spawn(async move {
    ///     match end.await {
    ///         Ok(state) => println!("{} messages to save", state.context.len()),
    ///         Err(error) => println!("nothing to save: {error}"),
    ///     }
    /// });
    /// // A response takes the events.
    /// while let Some(event) = events.next().await {
    ///     println!("event: {}", event.kind.name());
    /// }
    /// saved.await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn split(self) -> (RunEvents, RunEnd<S>) {
        (self.events, self.end)
    }

    /// Returns the id of the run.
    #[must_use]
    pub fn run_id(&self) -> RunId {
        self.end.run_id
    }
}

impl RunEvents {
    /// Returns the next event, or `None` when the run is over. The last event is
    /// [`RunEnded`](super::EventKind::RunEnded).
    ///
    /// # Cancel safety
    ///
    /// Safe to drop: no event is lost.
    pub async fn next(&mut self) -> Option<Event> {
        StreamExt::next(self).await
    }

    /// Returns the id of the run.
    #[must_use]
    pub fn run_id(&self) -> RunId {
        self.buffer.run
    }
}

impl Drop for RunEvents {
    fn drop(&mut self) {
        // Background tasks of the run may outlive the reader and continue to write.
        if self.buffer.close() {
            // Cancelling wakes the futures that wait for the token, and their wakers may be the user's.
            catch_panic(|| self.run.cancel());
        }
    }
}

impl<S> RunEnd<S> {
    /// Returns the id of the run.
    #[must_use]
    pub fn run_id(&self) -> RunId {
        self.run_id
    }
}

impl<S> Stream for RunStream<S> {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.events.poll_next_unpin(cx)
    }
}

impl Stream for RunEvents {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let Self { buffer, batch, .. } = &mut *self;
        buffer.poll_next(batch, cx)
    }
}

impl<S> Future for RunEnd<S> {
    type Output = Result<S, RunError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // The task of the run sends the result, even if its runtime drops it.
        let run_id = self.run_id;
        let lost = |_| Err(RunError::without_state(run_id, RunErrorKind::NoRuntime));
        self.result.poll_unpin(cx).map(|result| result.unwrap_or_else(lost))
    }
}

macro_rules! debug_with_run_id {
    ($($Type:ident $(<$S:ident>)?),+) => {$(
        impl$(<$S>)? fmt::Debug for $Type$(<$S>)? {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($Type)).field("run", &self.run_id()).finish_non_exhaustive()
            }
        }
    )+};
}
debug_with_run_id!(RunStream<S>, RunEvents, RunEnd<S>);

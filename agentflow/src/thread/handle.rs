//! [`Thread`]: a thread of a graph, on which runs begin.

use std::{fmt, sync::Arc};

use serde::Serialize;
use serde_json::Value;
use tokio::{runtime::Handle, sync::oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    begin::{Accepted, Preparer, QUEUE_POLL, Request},
    codec::Values,
    drive::{Driver, as_run_error, given_up},
    edit,
    error::ThreadError,
    input::{Input, IntoInput},
    outcome::{Outcome, Question},
    snapshot::ThreadState,
};
use crate::{
    config::RunConfig,
    error::NodeError,
    graph::{CompiledGraph, app::App},
    panics::catch_panic,
    run::{RunStream, event_channel::Sink, lifecycle::NewRun, tracker::RunTracker},
    session::{Session, patiently, repeatedly},
    state::State,
    store::{
        CheckpointId, HistoryFilter, InvalidThreadId, QuestionId, QuestionStatus, RunFilter, RunRow, StoreErrorKind,
        ThreadId,
    },
    task::{TaskHandle, inherit_task},
};

/// A thread of a graph: a conversation or a case, on which one run works at a time.
///
/// Cloning is cheap, and making one costs nothing: the thread itself is in the store, and is made by its first run.
pub struct Thread<S: State, C = ()> {
    graph: CompiledGraph<S, C>,
    id: Result<ThreadId, InvalidThreadId>,
}

impl<S: State + Default, C: Send + Sync + 'static> CompiledGraph<S, C> {
    /// Returns the thread with this id: a conversation or a case, which is kept in the graph's store, or in memory.
    ///
    /// The first run on a new thread begins with the default state, into which its input is merged. A text that is not the
    /// id of a thread (1 to 255 bytes) is an error of the thread's methods.
    pub fn thread(&self, id: impl AsRef<str>) -> Thread<S, C> {
        Thread { graph: self.clone(), id: id.as_ref().parse() }
    }
}

/// A run that the app has admitted, with all that it needs to be accepted by the store.
struct Admitted<S: State, C> {
    app: Arc<App<S, C>>,
    runtime: Handle,
    new: NewRun<Arc<RunTracker>>,
    request: Request<S>,
    token: CancellationToken,
}

impl<S: State + Default, C: Send + Sync + 'static> Admitted<S, C> {
    /// Asks the store to accept the run.
    async fn accept(self, sink: Sink) -> Result<(Driver<S, C>, Accepted<S>), ThreadError> {
        let Self { app, new, mut request, token, .. } = self;
        let session = app.session().await?;
        let values = Values::new(session.store.capabilities().keeps_values, app.codec)?;
        request.input = request.input.read(&values)?;
        loop {
            // The future is enabled before the look, so that the end of a run between the two is not missed.
            let mut ended = std::pin::pin!(session.run_ended.notified());
            ended.as_mut().enable();
            let driven = session.register(request.run, request.thread.clone(), token.clone());
            if driven.is_some() {
                let accepted = Preparer { app: &app, session: &session, values }.begin(&request).await?;
                return Ok((
                    Driver { app, session: Arc::clone(&session), values, request, new, driven, sink },
                    accepted,
                ));
            }
            // This process drives the run already: it is accepted, or is about to be.
            match patiently(|| session.store.run(request.run)).await? {
                Some(row) if row.run.thread == request.thread => {
                    let accepted = Accepted::Known(Box::new(row));
                    let session = Arc::clone(&session);
                    return Ok((Driver { app, session, values, request, new, driven, sink }, accepted));
                }
                _ => tokio::select! {
                    () = ended => {}
                    () = tokio::time::sleep(QUEUE_POLL) => {}
                    error = given_up(&app, &session, &token, request.run) => return Err(error),
                },
            }
        }
    }
}

impl<S: State + Default, C: Send + Sync + 'static> Thread<S, C> {
    /// Returns the id.
    ///
    /// # Errors
    ///
    /// [`InvalidThreadId`] if the text was not the id of a thread.
    pub fn id(&self) -> Result<&ThreadId, InvalidThreadId> {
        self.id.as_ref().map_err(Clone::clone)
    }

    /// Runs the graph on the thread, and returns how the run ended.
    ///
    /// The input is an update, which begins a run at the graph's start, or an [`Input`]. The run is committed step by step;
    /// what was acknowledged outlives the process, if the store does.
    ///
    /// # Errors
    ///
    /// [`ThreadError`] if the run was refused, or, as [`ThreadError::Run`], if it did not reach an end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the run, whose last commit stays.
    pub async fn invoke(&self, input: impl IntoInput<S>, config: RunConfig) -> Result<Outcome<S>, ThreadError> {
        let admitted = self.admit(input.into_input(), config)?;
        let guard = admitted.token.clone().drop_guard();
        let (sender, outcome) = oneshot::channel();
        let runtime = admitted.runtime.clone();
        // A task drives the run, so that a caller that goes away in the middle of a commit leaves nothing half done.
        runtime.spawn(inherit_task(async move {
            let outcome = match admitted.accept(Sink::default()).await {
                Ok((driver, accepted)) => driver.drive(accepted).await,
                Err(error) => Err(error),
            };
            // Without a receiver the outcome is dropped here, and the state's destructor is user code.
            catch_panic(|| drop(sender.send(outcome)));
        }));
        let outcome = outcome.await.unwrap_or(Err(ThreadError::NoRuntime));
        guard.disarm();
        outcome
    }

    /// Runs the graph on the thread as [`invoke`](Self::invoke) does, and returns a stream of its events once the run is
    /// accepted. Its end is the outcome.
    ///
    /// # Errors
    ///
    /// [`ThreadError`] if the run was refused.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the run. So does dropping the stream.
    pub async fn stream(
        &self,
        input: impl IntoInput<S>,
        config: RunConfig,
    ) -> Result<RunStream<Outcome<S>>, ThreadError> {
        let mut admitted = self.admit(input.into_input(), config)?;
        let guard = admitted.token.clone().drop_guard();
        let (sender, stream) = oneshot::channel();
        let runtime = admitted.runtime.clone();
        runtime.spawn(inherit_task(async move {
            let run = admitted.request.run;
            let (sink, events) = Sink::buffered(run);
            let (ended, result) = oneshot::channel();
            let reader = admitted.new.attach_reader();
            match admitted.accept(sink).await {
                Err(error) => drop(sender.send(Err(error))),
                Ok((driver, accepted)) => {
                    // A stream that nobody receives is dropped, which cancels the run.
                    drop(sender.send(Ok(RunStream::new(events, reader, result))));
                    let outcome = driver.drive(accepted).await.map_err(|error| as_run_error(run, error));
                    catch_panic(|| drop(ended.send(outcome)));
                }
            }
        }));
        let stream = stream.await.unwrap_or(Err(ThreadError::NoRuntime));
        guard.disarm();
        stream
    }

    /// Runs the graph on the thread as [`invoke`](Self::invoke) does, in a background task of the app with the name `run`.
    /// Returns once the run is accepted.
    ///
    /// # Errors
    ///
    /// [`ThreadError`] if the run was refused.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the run. Dropping the handle does not.
    pub async fn spawn(
        &self,
        input: impl IntoInput<S>,
        config: RunConfig,
    ) -> Result<TaskHandle<Outcome<S>>, ThreadError> {
        let admitted = self.admit(input.into_input(), config)?;
        let guard = admitted.token.clone().drop_guard();
        let manager = admitted.app.manager.clone();
        let thread = admitted.request.thread.clone();
        let (sender, accepted) = oneshot::channel();
        let task = async move {
            match admitted.accept(Sink::default()).await {
                Ok((driver, begun)) => {
                    let _ = sender.send(Ok(()));
                    driver.drive(begun).await.map_err(NodeError::from)
                }
                // The caller has the error, and the task's own line has its text.
                Err(error) => {
                    let text = error.to_string();
                    let _ = sender.send(Err(error));
                    Err(text.into())
                }
            }
        };
        let handle = manager.create_task(task).name("run").context("thread", thread.as_str()).spawn()?;
        accepted.await.unwrap_or(Err(ThreadError::NoRuntime))?;
        guard.disarm();
        Ok(handle)
    }

    /// Answers an open question, and runs the graph on from the node that asked.
    ///
    /// # Errors
    ///
    /// [`ThreadError::WrongAnswer`] if the answer is not of the node's type; the question stays open. The others are those
    /// of [`invoke`](Self::invoke).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the run. The answer is a part of the thread's position then, and
    /// [`Input::resume`] goes on with it.
    pub async fn answer<A: Serialize + ?Sized>(
        &self,
        question: QuestionId,
        answer: &A,
    ) -> Result<Outcome<S>, ThreadError> {
        let answer = serde_json::to_value(answer);
        let answer = answer.map_err(|error| ThreadError::Unwritable { error: error.to_string() })?;
        self.answer_json(question, answer).await
    }

    /// Answers an open question with JSON; see [`answer`](Self::answer).
    ///
    /// # Errors
    ///
    /// As [`answer`](Self::answer).
    ///
    /// # Cancel safety
    ///
    /// As [`answer`](Self::answer).
    pub async fn answer_json(&self, question: QuestionId, answer: Value) -> Result<Outcome<S>, ThreadError> {
        self.invoke(Input::answers([(question, answer)]), RunConfig::new()).await
    }

    /// Asks the app to admit a run.
    fn admit(&self, input: Input<S>, config: RunConfig) -> Result<Admitted<S, C>, ThreadError> {
        let thread = self.id.clone()?;
        let app = Arc::clone(&self.graph.app);
        let token = config.cancellation_token().map_or_else(CancellationToken::new, CancellationToken::child_token);
        let config = config.with_thread_id(thread.as_str()).with_cancellation_token(token.clone());
        let new = NewRun::admit(&app, Arc::clone(&app.runs), config.clone());
        if !new.is_accepted() {
            return Err(ThreadError::Closed);
        }
        let runtime = Handle::try_current().ok().or_else(|| app.manager.runtime()).ok_or(ThreadError::NoRuntime)?;
        let request = Request { run: new.id, thread, input, config };
        Ok(Admitted { app, runtime, new, request, token })
    }
}

/// Reading and editing.
impl<S: State + Default, C: Send + Sync + 'static> Thread<S, C> {
    /// Returns the newest state of the thread, also while a run is on; `None` before the first run.
    ///
    /// # Errors
    ///
    /// [`ThreadError`] if the store fails, or the state cannot be read.
    pub async fn state(&self) -> Result<Option<ThreadState<S>>, ThreadError> {
        self.load(None).await
    }

    /// Returns the state of the thread at a checkpoint.
    ///
    /// # Errors
    ///
    /// [`ThreadError::NoSuchCheckpoint`] if the thread has none with this id, and as [`state`](Self::state).
    pub async fn at(&self, checkpoint: CheckpointId) -> Result<ThreadState<S>, ThreadError> {
        self.load(Some(checkpoint)).await?.ok_or(ThreadError::NoSuchCheckpoint { checkpoint })
    }

    async fn load(&self, at: Option<CheckpointId>) -> Result<Option<ThreadState<S>>, ThreadError> {
        let (id, session, values) = self.parts().await?;
        let (row, questions) = loop {
            let row = patiently(|| session.store.load(id, at)).await?;
            let questions = patiently(|| session.store.questions(id, Some(QuestionStatus::Open))).await?;
            // The two belong together unless the head has moved between them.
            let thread = patiently(|| session.store.thread(id)).await?;
            let head = thread.and_then(|thread| thread.head);
            match (&row, at) {
                (Some(row), None) if head != Some(row.id) => {}
                (Some(found), _) if head != Some(found.id) => break (row, Vec::new()),
                _ => break (row, questions),
            }
        };
        row.map(|row| ThreadState::of(&row, &values, &questions)).transpose()
    }

    /// Returns the states of the thread at all of its checkpoints, those of all branches, the newest first.
    ///
    /// # Errors
    ///
    /// As [`state`](Self::state).
    pub async fn history(&self, filter: HistoryFilter) -> Result<Vec<ThreadState<S>>, ThreadError> {
        let (id, session, values) = self.parts().await?;
        let rows = patiently(|| session.store.history(id, filter.clone())).await?;
        rows.iter().map(|row| ThreadState::of(row, &values, &[])).collect()
    }

    /// Returns the open questions of the thread, the oldest first.
    ///
    /// # Errors
    ///
    /// [`ThreadError`] if the store fails.
    pub async fn questions(&self) -> Result<Vec<Question>, ThreadError> {
        let (id, session, _) = self.parts().await?;
        let rows = patiently(|| session.store.questions(id, Some(QuestionStatus::Open))).await?;
        Ok(rows.iter().map(Question::of).collect())
    }

    /// Returns the runs of the thread that the filter selects, the newest first.
    ///
    /// # Errors
    ///
    /// [`ThreadError`] if the store fails.
    pub async fn runs(&self, filter: RunFilter) -> Result<Vec<RunRow>, ThreadError> {
        let (id, session, _) = self.parts().await?;
        let mut filter = filter;
        filter.thread = Some(id.clone());
        Ok(patiently(|| session.store.runs(filter.clone())).await?)
    }

    /// Merges an update into the newest state, as a checkpoint of its own.
    ///
    /// Without `as_node` the position, the open questions and the progress stay. With it the position is what follows that
    /// node, which must follow from the state alone.
    ///
    /// # Errors
    ///
    /// [`ThreadError::Busy`] if a run is unfinished, [`ThreadError::WrongNode`] if what follows the node cannot be told.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the checkpoint is made or not.
    pub async fn update(&self, update: S::Update, as_node: Option<&str>) -> Result<CheckpointId, ThreadError> {
        let (id, session, values) = self.parts().await?;
        edit::update(&self.graph.app, &session, values, id, update, as_node).await
    }

    /// Copies the thread, with all of its checkpoints under the same ids. Open questions get new ids.
    ///
    /// # Errors
    ///
    /// [`ThreadError::Exists`] if there is a thread with that id, [`ThreadError::NoSuchThread`] if this one does not exist.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the copy is made or not.
    pub async fn fork(&self, other: impl AsRef<str>) -> Result<Self, ThreadError> {
        let other: ThreadId = other.as_ref().parse()?;
        let (id, session, _) = self.parts().await?;
        if patiently(|| session.store.thread(&other)).await?.is_some() {
            return Err(ThreadError::Exists);
        }
        let (copied, was_repeated) = repeatedly(|| session.store.copy_thread(id, &other)).await;
        let copy = || Self { graph: self.graph.clone(), id: Ok(other.clone()) };
        match copied {
            Ok(Some(_)) => Ok(copy()),
            Ok(None) => Err(ThreadError::NoSuchThread),
            // An attempt whose answer was lost has made the copy: there was no such thread before.
            Err(error) if *error.kind() == StoreErrorKind::Invalid && was_repeated => Ok(copy()),
            Err(error) if *error.kind() == StoreErrorKind::Invalid => Err(ThreadError::Exists),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes the thread with its runs, checkpoints and questions. A run that is on is cancelled first. Returns whether
    /// there was a thread.
    ///
    /// # Errors
    ///
    /// [`ThreadError::Busy`] if a run of another process did not end within 30 s.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the thread is deleted or not.
    pub async fn delete(&self) -> Result<bool, ThreadError> {
        let (id, session, _) = self.parts().await?;
        edit::delete(&session, id).await
    }

    /// Deletes the checkpoints of the thread but the newest `keep` of each branch, and those that are needed: the head, and
    /// those with open questions. Returns how many were deleted.
    ///
    /// # Errors
    ///
    /// [`ThreadError`] if the store fails.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, all are deleted or none.
    pub async fn prune(&self, keep: usize) -> Result<usize, ThreadError> {
        let (id, session, _) = self.parts().await?;
        Ok(patiently(|| session.store.prune(id, keep)).await?)
    }

    async fn parts(&self) -> Result<(&ThreadId, Arc<Session>, Values<S>), ThreadError> {
        let id = self.id.as_ref().map_err(Clone::clone)?;
        let session = self.graph.app.session().await?;
        let values = Values::new(session.store.capabilities().keeps_values, self.graph.app.codec)?;
        Ok((id, session, values))
    }
}

impl<S: State, C> Clone for Thread<S, C> {
    fn clone(&self) -> Self {
        Self { graph: self.graph.clone(), id: self.id.clone() }
    }
}

impl<S: State, C> fmt::Debug for Thread<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thread").field("id", &self.id).field("graph", &self.graph).finish()
    }
}

//! The life of a run on a thread: it waits for its turn, walks the graph, and ends with a commit.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use serde_json::value::RawValue;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    begin::{Accepted, Beginning, Preparer, QUEUE_POLL, Request, time_until},
    codec::Values,
    error::ThreadError,
    options::Stops,
    outcome::{Outcome, Question},
    recorder::{ThreadRecorder, new_question},
};
use crate::{
    error::NodeError,
    graph::app::App,
    panics::catch_panic,
    run::{
        EventKind, NodeFailure, RunError, RunErrorKind, RunId,
        error::Failure,
        event_channel::Sink,
        invocation::Arrival,
        lifecycle::{self, NewRun},
        progress::Progress,
        tracker::RunTracker,
    },
    session::{DrivenRun, Session, patiently},
    state::State,
    store::{CancelKind, QuestionStatus, Rest, RunEnd, RunFailure, RunRow, RunStatus, StoreError, StoreErrorKind},
};

/// A run that this process drives, from its acceptance to its end.
pub(super) struct Driver<S: State, C> {
    pub(super) app: Arc<App<S, C>>,
    pub(super) session: Arc<Session>,
    pub(super) values: Values<S>,
    pub(super) request: Request<S>,
    pub(super) new: NewRun<Arc<RunTracker>>,
    /// `None` if another driver of this process has the run, and this one waits for its end.
    pub(super) driven: Option<DrivenRun>,
    pub(super) sink: Sink,
}

impl<S: State + Default, C: Send + Sync + 'static> Driver<S, C> {
    /// Drives the run to its end.
    pub(super) async fn drive(mut self, accepted: Accepted<S>) -> Result<Outcome<S>, ThreadError> {
        let beginning = match accepted {
            Accepted::Running(beginning) => *beginning,
            Accepted::Queued => match self.wait_for_turn().await? {
                Some(beginning) => beginning,
                None => return Err(ThreadError::CancelledBeforeStart),
            },
            Accepted::Known(row) => {
                // Another driver has the run, or nobody has, and recovery must find out.
                self.driven = None;
                return self.join(*row).await;
            }
        };
        if let Some(driven) = &self.driven {
            driven.begins();
        }
        self.sink.push(|| EventKind::RunStarted { graph: self.app.name.to_string() });
        self.run(beginning).await
    }

    fn preparer(&self) -> Preparer<'_, S, C> {
        Preparer { app: &self.app, session: &self.session, values: self.values }
    }

    /// Waits until it is the run's turn. Returns `None` if the run was cancelled before.
    async fn wait_for_turn(&mut self) -> Result<Option<Beginning<S>>, ThreadError> {
        let token = self.request.config.cancellation_token().cloned().unwrap_or_default();
        let never = CancellationToken::new();
        let mut since = 0;
        loop {
            // The future is enabled before the look, so that the end of a run between the two is not missed.
            let mut ended = std::pin::pin!(self.session.run_ended.notified());
            ended.as_mut().enable();
            let began = self.preparer().start(&self.request).await;
            match began {
                Ok(None) => {}
                Ok(Some(beginning)) => return Ok(Some(beginning)),
                Err(ThreadError::CancelledBeforeStart) => return Ok(None),
                // Another process may have the run, or recovery takes it up again.
                Err(error @ ThreadError::Store(_)) => return Err(error),
                Err(error) => {
                    // Nobody else can start a run whose start this code cannot compute.
                    self.cancel_queued().await;
                    return Err(error);
                }
            }
            let due = time_until(self.request.config.thread_options().not_before);
            let changed = self.session.store.changes(since, QUEUE_POLL);
            tokio::select! {
                biased;
                () = token.cancelled() => {
                    self.cancel_queued().await;
                    return Ok(None);
                }
                error = given_up(&self.app, &self.session, &never, self.request.run) => {
                    // The run stays in the queue, for the next process.
                    self.new.keep();
                    return Err(error);
                }
                () = ended => {}
                () = sleep(due), if !due.is_zero() => {}
                changed = changed => match changed {
                    Ok(now) => since = now,
                    Err(_) => sleep(QUEUE_POLL).await,
                },
            }
        }
    }

    async fn cancel_queued(&self) {
        let run = self.request.run;
        let kind = self.session.cancel_of(run).unwrap_or(CancelKind::Cancel);
        if let Err(error) = patiently(|| self.session.store.request_cancel(run, kind)).await {
            catch_panic(|| tracing::warn!(%run, %error, "a queued run was not cancelled in the store"));
        }
    }

    /// Waits for the end of a run that was accepted before, in this process or in another one.
    async fn join(&self, mut row: RunRow) -> Result<Outcome<S>, ThreadError> {
        let mut since = 0;
        let token = self.request.config.cancellation_token().cloned().unwrap_or_default();
        while !row.status.has_ended() {
            let mut ended = std::pin::pin!(self.session.run_ended.notified());
            ended.as_mut().enable();
            tokio::select! {
                error = given_up(&self.app, &self.session, &token, row.run.id) => return Err(error),
                () = ended => {}
                changed = self.session.store.changes(since, QUEUE_POLL) => match changed {
                    Ok(now) => since = now,
                    Err(_) => sleep(QUEUE_POLL).await,
                },
            }
            match patiently(|| self.session.store.run(row.run.id)).await? {
                Some(now) => row = now,
                None => return Err(ThreadError::CancelledBeforeStart),
            }
        }
        self.outcome_of(&row).await
    }

    /// Returns the outcome of a run that has ended.
    async fn outcome_of(&self, row: &RunRow) -> Result<Outcome<S>, ThreadError> {
        let checkpoint = match row.last_checkpoint {
            None => None,
            Some(id) => patiently(|| self.session.store.load(&row.run.thread, Some(id))).await?,
        };
        let Some(checkpoint) = checkpoint else { return Err(ThreadError::NoSuchThread) };
        match row.status {
            RunStatus::Done => Ok(Outcome::Done(self.values.load(&checkpoint)?)),
            RunStatus::Waiting => match self.open_questions().await? {
                questions if questions.is_empty() => Ok(Outcome::Stopped { next: checkpoint.next }),
                questions => Ok(Outcome::Waiting(questions)),
            },
            _ => {
                let node: Arc<str> = checkpoint.next.first().cloned().unwrap_or_else(|| "END".into());
                let kind = match &row.failure {
                    Some(RunFailure { message, node: failed, .. }) => {
                        let failed = failed.clone().unwrap_or(node);
                        RunErrorKind::Node(NodeFailure::new(failed, NodeError::from(message.clone())))
                    }
                    None => RunErrorKind::Cancelled { node },
                };
                let state = self.values.load(&checkpoint)?;
                Err(Failure::committed(kind).into_error(row.run.id, state).into())
            }
        }
    }

    async fn open_questions(&self) -> Result<Vec<Question>, ThreadError> {
        let (thread, open) = (&self.request.thread, Some(QuestionStatus::Open));
        let rows = patiently(|| self.session.store.questions(thread, open)).await?;
        Ok(rows.iter().map(Question::of).collect())
    }

    /// Walks the graph, and ends the run.
    async fn run(&mut self, beginning: Beginning<S>) -> Result<Outcome<S>, ThreadError> {
        let Beginning { mut state, resumption, epoch, from } = beginning;
        let options = self.request.config.thread_options();
        let stops = Stops { before: options.stop_before.clone(), after: options.stop_after.clone() };
        let recorder = Arc::new(ThreadRecorder::new(
            Arc::clone(&self.session),
            self.request.run,
            epoch,
            self.values,
            self.app.hash,
            stops,
            Arc::clone(&self.app.runs),
            options.is_ephemeral,
            from,
        ));
        let progress = Progress::recorded(self.app.plan.entry, Arc::clone(&recorder) as _, resumption);
        let walked = AssertUnwindSafe(lifecycle::run(
            &self.app,
            &mut state,
            &progress,
            Arrival::default(),
            &mut self.new,
            &self.sink,
        ));
        let ended = walked.catch_unwind().await.unwrap_or_else(|panic| {
            // The panics of nodes are caught earlier; this one came from a tracing subscriber.
            let entry = self.app.entry();
            Err(Failure::new(RunErrorKind::Node(NodeFailure::new(entry, NodeError::panicked(panic))), false))
        });
        self.end(&recorder, state, ended).await
    }

    /// Gives up a run whose step the store did not record. It is taken up again by the process that fenced this one off, or
    /// by `recover`. The store was repeated for long enough: what it does not release now, recovery releases later.
    async fn given_up(&self, recorder: &ThreadRecorder<S>, state: S, error: StoreError) -> ThreadError {
        if *error.kind() != StoreErrorKind::Fenced {
            recorder.release_once().await;
        }
        lost(self.request.run, state, RunErrorKind::Store(error))
    }

    /// Ends the run in the store.
    async fn end(
        &mut self,
        recorder: &ThreadRecorder<S>,
        state: S,
        ended: Result<(), Box<Failure>>,
    ) -> Result<Outcome<S>, ThreadError> {
        let run = self.request.run;
        let ended = match ended {
            Err(failure) => match failure.kind {
                RunErrorKind::Store(error) => return Err(self.given_up(recorder, state, error).await),
                kind => Err(Failure { kind, is_committed: failure.is_committed }),
            },
            Ok(()) => Ok(()),
        };
        // An interrupt may have cut off the wait for a commit, which may have ended the run.
        let settled = match recorder.settle().await {
            Ok(settled) => settled,
            Err(error) => return Err(lost(run, state, RunErrorKind::Store(error))),
        };
        let failure = match (settled, ended) {
            (Some(RunStatus::Waiting), Err(failure)) => match failure.kind {
                RunErrorKind::Stopped { next } => return Ok(Outcome::Stopped { next }),
                _ => return Ok(Outcome::Stopped { next: Vec::new() }),
            },
            (Some(_), _) | (None, Ok(())) => return Ok(Outcome::Done(state)),
            (None, Err(failure)) => failure,
        };
        // What cannot be written is in no checkpoint.
        let is_committed = failure.is_committed && !matches!(failure.kind, RunErrorKind::Unwritable { .. });
        let ended = match &failure.kind {
            RunErrorKind::Asked { node, question, others } => {
                let others = others.iter().map(|(node, question)| (node, &**question));
                let asked = std::iter::once((node, &**question)).chain(others);
                let question = |(node, question): (&Arc<str>, &RawValue)| {
                    new_question(Arc::clone(node), recorder.step_of(node), question.get().as_bytes().to_vec())
                };
                recorder.end(RunEnd::new(RunStatus::Waiting, Rest::Paused), asked.map(question).collect()).await
            }
            RunErrorKind::StillAsking { .. } => {
                recorder.end(RunEnd::new(RunStatus::Waiting, Rest::Paused), Vec::new()).await
            }
            RunErrorKind::Cancelled { .. } => {
                let mut end = RunEnd::new(RunStatus::Cancelled, Rest::Paused);
                end.rolls_back = self.session.cancel_of(run) == Some(CancelKind::Rollback);
                recorder.end(end, Vec::new()).await
            }
            RunErrorKind::ShutDown { .. } => {
                self.new.keep();
                recorder.release().await
            }
            kind => {
                let mut end = RunEnd::new(RunStatus::Failed, Rest::Failed);
                end.failure = Some(run_failure(kind));
                recorder.end(end, Vec::new()).await
            }
        };
        match (ended, failure.kind) {
            (Ok(()), RunErrorKind::Asked { .. } | RunErrorKind::StillAsking { .. }) => {
                Ok(Outcome::Waiting(self.open_questions().await?))
            }
            (Ok(()), kind) => Err(Failure::new(kind, is_committed).into_error(run, state).into()),
            (Err(error), kind) => {
                catch_panic(|| tracing::error!(%run, error = %kind, "run failed, and the store did not record it"));
                Err(lost(run, state, RunErrorKind::Store(error)))
            }
        }
    }
}

/// Waits until the caller of a run that waits goes away, or until the app shuts down. Returns the error of the run, which goes on
/// elsewhere if the store is durable.
pub(super) async fn given_up<S: State, C>(
    app: &App<S, C>,
    session: &Session,
    token: &CancellationToken,
    run: RunId,
) -> ThreadError {
    // A store that outlives the process lets the next one go on. Other runs wait as long as the shutdown waits for them.
    let is_durable = session.store.capabilities().is_durable;
    let shutdown = if is_durable { app.runs.draining() } else { app.runs.shutdown() };
    let node = app.entry();
    let kind = tokio::select! {
        biased;
        () = token.cancelled() => RunErrorKind::Cancelled { node },
        () = shutdown.wait() => RunErrorKind::ShutDown { node },
    };
    RunError::without_state(run, kind).into()
}

/// Returns the error of a run whose last step is not known to be recorded.
fn lost<S: State>(run: RunId, state: S, kind: RunErrorKind) -> ThreadError {
    Failure::new(kind, false).into_error(run, state).into()
}

fn run_failure(kind: &RunErrorKind) -> RunFailure {
    let node = match kind {
        RunErrorKind::Node(failure) => Some(Arc::clone(&failure.node)),
        RunErrorKind::TimedOut { node, .. }
        | RunErrorKind::RecursionLimit { node, .. }
        | RunErrorKind::Unwritable { node, .. } => Some(Arc::clone(node)),
        _ => None,
    };
    RunFailure::new(kind.name(), crate::panics::text_of(kind), node)
}

/// Returns the error of a run, for a stream whose end is one.
pub(super) fn as_run_error(run: RunId, error: ThreadError) -> RunError {
    match error {
        ThreadError::Run(error) => error,
        ThreadError::Store(error) => RunError::without_state(run, RunErrorKind::Store(error)),
        ThreadError::Closed => RunError::without_state(run, RunErrorKind::Closed),
        other => RunError::without_state(run, RunErrorKind::NotStarted { error: other.to_string() }),
    }
}

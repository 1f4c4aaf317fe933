//! Recovery: runs of owners that are not alive are taken over, and driven to their ends.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{runtime::Handle, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    begin::{Accepted, Base, Beginning, Preparer, Request, discarded},
    codec::Values,
    drive::Driver,
    error::ThreadError,
    input::Input,
    recorder::RecordedFrom,
};
use crate::{
    config::RunConfig,
    durable::start_worker,
    graph::{CompiledGraph, app::App},
    panics::catch_panic,
    run::{RunId, event_channel::Sink, lifecycle::NewRun},
    session::{Session, patiently},
    state::State,
    store::{
        CancelKind, Commit, QuestionRow, QuestionStatus, Rest, RunEnd, RunFilter, RunRow, RunStatus, StoreError,
        StoreErrorKind, TakeOver, TakenRun,
    },
};

/// The time between two looks for runs of dead owners.
const PERIOD: Duration = Duration::from_secs(10);

/// The number of runs that are taken over at once.
const BATCH: usize = 64;

/// The outcome of the first pass of [`CompiledGraph::recover`].
#[derive(Clone, Debug, Default)]
#[must_use = "runs that were left need code that can read them"]
#[non_exhaustive]
pub struct RecoveryReport {
    /// The runs that this process has taken over. They go on in the background.
    pub taken: Vec<RunId>,
    /// The runs that have failed for good, because a process died each time that one of them ran.
    pub parked: Vec<RunId>,
    /// The runs that this code cannot go on with, each with the reason. They wait for a process that can.
    pub left: Vec<(RunId, String)>,
}

impl<S: State + Default, C: Send + Sync + 'static> CompiledGraph<S, C> {
    /// Takes over the runs of this graph that earlier processes have left unfinished, and goes on with them in the
    /// background; the same for those of processes that die later, until the app is closed. It also starts the worker that runs
    /// durable tasks. Call it once, at the start.
    ///
    /// Each goes on from its last commit: the node that was cut off runs again, with the same
    /// step id. A run at which several processes have died is resumed alone, and fails for good (`Poison`) if that one dies
    /// too.
    ///
    /// # Errors
    ///
    /// [`ThreadError::Store`] if the store fails.
    ///
    /// # Cancel safety
    ///
    /// Runs that were taken over before the future is dropped go on.
    pub async fn recover(&self) -> Result<RecoveryReport, ThreadError> {
        let app = &self.app;
        let session = app.session().await?;
        let mut recovery = Recovery { left: Vec::new() };
        let report = recovery.pass(app, &session).await?;
        start_worker(app);
        if !session.starts_recovery() {
            return Ok(report);
        }
        let weak = Arc::downgrade(app);
        Handle::try_current().map_err(|_| ThreadError::NoRuntime)?.spawn(recovery.keep_going(weak));
        Ok(report)
    }
}

/// The state of the recovery of one app.
struct Recovery {
    /// The runs that this code cannot go on with.
    left: Vec<RunId>,
}

impl Recovery {
    /// Looks for runs of dead owners, until the app is closed.
    async fn keep_going<S: State + Default, C: Send + Sync + 'static>(mut self, app: Weak<App<S, C>>) {
        loop {
            sleep(PERIOD).await;
            let Some(app) = app.upgrade().filter(|app| !app.runs.is_draining()) else { return };
            let Ok(session) = app.session().await else { continue };
            let passed = async {
                take_up_orphans(&app, &session).await?;
                self.pass(&app, &session).await
            };
            if let Err(error) = passed.await {
                catch_panic(|| tracing::warn!(%error, "the recovery of runs is repeated later"));
            }
        }
    }

    /// Takes over all runs that it can.
    async fn pass<S: State + Default, C: Send + Sync + 'static>(
        &mut self,
        app: &Arc<App<S, C>>,
        session: &Arc<Session>,
    ) -> Result<RecoveryReport, ThreadError> {
        let values = Values::new(session.store.capabilities().keeps_values, app.codec)?;
        let mut report = RecoveryReport::default();
        loop {
            let mut request = TakeOver::new(Arc::clone(&app.name), session.owner(), BATCH);
            request.except.clone_from(&self.left);
            // A run that this process drives is its own, even if its lease has run out. One that was given up again in this
            // pass waits for the next one.
            request.except.extend(session.live_runs().into_iter().map(|(run, _)| run));
            request.except.extend(&report.taken);
            let taken = patiently(|| session.store.take_over(request.clone())).await?;
            if taken.is_empty() {
                return Ok(report);
            }
            for mut taken in taken {
                let (run, epoch, consumed) = (taken.run.run.id, taken.run.epoch, taken.run.consumed);
                let is_running = taken.run.status == RunStatus::Running;
                if is_running && taken.run.cancel.is_some() {
                    end_cancelled(session, &taken.run).await?;
                    report.taken.push(run);
                    continue;
                }
                if taken.run.status.has_ended() {
                    catch_panic(|| tracing::error!(%run, "a run is parked: each process that ran it has died"));
                    report.parked.push(run);
                    continue;
                }
                let resumed = match with_questions(session, &mut taken).await {
                    Ok(()) => resume(app, session, values, &taken),
                    Err(error) => Err(error.into()),
                };
                match resumed {
                    Ok(()) => report.taken.push(run),
                    Err(error) => {
                        self.left.push(run);
                        catch_panic(
                            || tracing::warn!(%run, %error, "a run is left for a process that can go on with it"),
                        );
                        report.left.push((run, error.to_string()));
                        if is_running {
                            patiently(|| session.store.release_run(run, epoch, consumed)).await?;
                        }
                    }
                }
            }
        }
    }
}

/// Adds the answers that other runs were given, and with which this one goes on: theirs have failed.
async fn with_questions(session: &Session, taken: &mut TakenRun) -> Result<(), StoreError> {
    if taken.run.status == RunStatus::Running {
        let (thread, answered) = (&taken.run.run.thread, Some(QuestionStatus::Answered));
        let questions = patiently(|| session.store.questions(thread, answered)).await?;
        taken.questions.retain(|row| row.status != QuestionStatus::Answered);
        taken.questions.extend(questions);
    }
    Ok(())
}

/// Takes over a run of which a cancel was requested and which no living owner drives, and ends it.
pub(super) async fn end_abandoned<S: State, C>(
    app: &App<S, C>,
    session: &Session,
    run: RunId,
) -> Result<(), ThreadError> {
    let mut request = TakeOver::new(Arc::clone(&app.name), session.owner(), 1);
    request.run = Some(run);
    for taken in patiently(|| session.store.take_over(request.clone())).await? {
        if taken.run.status == RunStatus::Running {
            end_cancelled(session, &taken.run).await?;
        }
    }
    Ok(())
}

/// Ends a run that was taken over and of which a cancel was requested. Its node does not run, and nothing has to be read.
async fn end_cancelled(session: &Session, row: &RunRow) -> Result<(), ThreadError> {
    let mut commit = Commit::new(row.run.id, row.epoch, row.commit + 1, row.last_checkpoint);
    commit.steps = row.steps;
    commit.consumed = row.consumed;
    let mut end = RunEnd::new(RunStatus::Cancelled, Rest::Paused);
    end.rolls_back = row.cancel == Some(CancelKind::Rollback);
    commit.end = Some(end);
    match patiently(|| session.store.commit(commit.clone())).await {
        // Another owner has it, or an attempt whose answer was lost has ended and deleted it.
        Err(error) if *error.kind() == StoreErrorKind::Fenced => Ok(()),
        ended => Ok(ended.map(drop)?),
    }
}

/// Goes on with a run that was taken over, in a task of its own.
fn resume<S: State + Default, C: Send + Sync + 'static>(
    app: &Arc<App<S, C>>,
    session: &Arc<Session>,
    values: Values<S>,
    recovered: &TakenRun,
) -> Result<(), ThreadError> {
    let runtime = Handle::try_current().ok().or_else(|| app.manager.runtime()).ok_or(ThreadError::NoRuntime)?;
    let row = &recovered.run;
    let (run, thread) = (row.run.id, row.run.thread.clone());
    let config = RunConfig::from_json(row.run.config.json().map_or(b"{}", |json| json));
    let config = config.map_err(|error| ThreadError::Unreadable { error: format!("the run's settings: {error}") })?;
    let token = CancellationToken::new();
    let config = config.with_run_id(run).with_thread_id(thread.as_str()).with_cancellation_token(token.clone());
    let config = match config.run_timeout() {
        // The time for which a live owner has had the run counts.
        Some(timeout) => config.with_run_timeout(timeout.saturating_sub(row.consumed)),
        None => config,
    };
    let input = Input::load(&row.run.input, &values)?;
    let request = Request { run, thread: thread.clone(), input, config: config.clone() };
    let accepted = match row.status {
        RunStatus::Running => Accepted::Running(Box::new(beginning(app, session, values, &request, recovered)?)),
        _ => Accepted::Queued,
    };
    let new = NewRun::admit(app, Arc::clone(&app.runs), config);
    if !new.is_accepted() {
        return Err(ThreadError::Closed);
    }
    let driven = session.register(run, thread, token);
    if driven.is_none() {
        return Err(ThreadError::Busy { run, is_driven: true });
    }
    let (app, session) = (Arc::clone(app), Arc::clone(session));
    let of_run = Driver { app, session, values, request, new, driven, sink: Sink::default() };
    runtime.spawn(async move {
        // The run has logged how it ended, and nobody waits for its outcome.
        let outcome = of_run.drive(accepted).await;
        catch_panic(|| drop(outcome));
    });
    Ok(())
}

/// Returns where a run goes on that had begun.
fn beginning<S: State + Default, C>(
    app: &App<S, C>,
    session: &Session,
    values: Values<S>,
    request: &Request<S>,
    taken: &TakenRun,
) -> Result<Beginning<S>, ThreadError> {
    let TakenRun { run: row, checkpoint, questions, progress, .. } = taken;
    let is_same_graph = checkpoint.as_ref().is_none_or(|checkpoint| checkpoint.graph_hash == app.hash);
    let base = Base::load(checkpoint.as_ref(), &values)?;
    let position = base.position.filter(|position| !position.is_end());
    let position = position.ok_or_else(|| super::unreadable("the run has no position".to_owned()))?;
    let is_answered = |row: &&QuestionRow| row.status == QuestionStatus::Answered && position.has_asked(row);
    let answered: Vec<_> = questions.iter().filter(is_answered).collect();
    // A run that resumes its thread replaces the open questions; the first commit has done so.
    let replaces = request.input.is_resume() && row.commit == 0;
    let open = questions.iter().filter(|row| replaces && row.status == QuestionStatus::Open);
    let asked_anew = open.map(|row| (row.asked.id, Arc::clone(&row.asked.node))).collect();
    let preparer = Preparer { app, session, values };
    let answer = |row: &&QuestionRow| Ok((Arc::clone(&row.asked.node), preparer.stored_answer(row)?));
    let answers = answered.iter().map(answer).collect::<Result<_, ThreadError>>()?;
    let steps = usize::try_from(row.steps).unwrap_or(usize::MAX);
    let origin = position.origin;
    let (resumption, open_answers) = preparer.resumption(position, steps, answers)?;
    let (json, delta_bytes) = base.json.map_or((None, 0), |(json, bytes)| (Some(json), bytes));
    let from = RecordedFrom {
        number: row.commit,
        parent: row.last_checkpoint.or(checkpoint.as_ref().map(|checkpoint| checkpoint.id)),
        state: json,
        delta_bytes,
        answered: answered.iter().map(|row| (row.asked.id, Arc::clone(&row.asked.node))).collect(),
        replaced: asked_anew,
        origin,
        progress: if is_same_graph { progress.clone() } else { discarded(&row.run.thread, progress) },
        // The answers to the other questions may come later.
        answers: !answered.is_empty() && !request.input.is_resume(),
        open_answers,
        steps: row.steps,
        consumed: row.consumed,
    };
    Ok(Beginning { state: base.state, resumption, epoch: row.epoch, from })
}

/// Takes up the runs that the store ascribes to this owner, and that this process does not drive: an answer of the store was
/// lost, or the store was away for too long. Running ones are released, and queued ones wait for their turn.
async fn take_up_orphans<S: State + Default, C: Send + Sync + 'static>(
    app: &Arc<App<S, C>>,
    session: &Arc<Session>,
) -> Result<(), ThreadError> {
    let values = Values::new(session.store.capabilities().keeps_values, app.codec)?;
    for status in [RunStatus::Running, RunStatus::Queued] {
        let filter = RunFilter {
            graph: Some(Arc::clone(&app.name)),
            owner: Some(session.owner()),
            status: Some(status),
            ..RunFilter::default()
        };
        for row in patiently(|| session.store.runs(filter.clone())).await? {
            // A run is registered before the store is asked, so that one that is not registered is driven by nobody.
            let run = row.run.id;
            if session.drives(run) {
                continue;
            }
            let taken_up = if status == RunStatus::Running {
                session.store.release_run(run, row.epoch, row.consumed).await.map_err(ThreadError::from)
            } else if row.last_checkpoint.is_none() {
                resume(app, session, values, &TakenRun::new(row, None, Vec::new(), Vec::new()))
            } else {
                // It was released, and is taken over.
                Ok(())
            };
            if let Err(error) = taken_up {
                catch_panic(|| tracing::debug!(%run, %error, "a run has changed before it was taken up again"));
            }
        }
    }
    Ok(())
}

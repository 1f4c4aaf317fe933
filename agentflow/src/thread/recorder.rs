//! [`ThreadRecorder`]: commits the steps of one run to the store.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::{codec::Values, error::ThreadError, options::Stops, position::Position, progress::Branches};
use crate::{
    carried::{Input, InputType},
    panics::catch_panic,
    question::Answer,
    run::{
        RunErrorKind, RunId, StepId,
        recorder::{BranchRecord, EndedStep, NextStep, Recorder},
        tracker::RunTracker,
    },
    session::{Session, repeatedly},
    state::State,
    store::{
        CheckpointId, Commit, Committed, NewCheckpoint, NewQuestion, NewValues, ProgressRecord, QuestionId, Rest,
        RunEnd, RunStatus, Source, StoreError, StoreErrorKind, Stored,
    },
    sync::Mutex,
};

/// Commits the steps of one run to the store.
pub(super) struct ThreadRecorder<S: State> {
    pub(super) session: Arc<Session>,
    pub(super) run: RunId,
    pub(super) epoch: u64,
    pub(super) values: Values<S>,
    pub(super) graph_hash: u64,
    pub(super) stops: Stops,
    /// The runs of the app, which tell that it is shutting down.
    pub(super) tracker: Arc<RunTracker>,
    pub(super) deletes_thread: bool,
    branches: Branches<S>,
    /// Set if the progress of the group is of no use. Relaxed, because the run itself sets and reads it.
    is_discarded: AtomicBool,
    /// The step of the group at which the run is.
    group: Mutex<Option<Arc<str>>>,
    written: Mutex<Written>,
}

/// The state of the run in the store.
#[derive(Debug)]
struct Written {
    /// The number of the last commit.
    number: u64,
    /// The checkpoint that the next one follows.
    parent: Option<CheckpointId>,
    /// The JSON of the state at `parent`; `None` if the store keeps values, or if nothing was read yet.
    state: Option<Bytes>,
    /// The length of the differences since the last whole state.
    delta_bytes: usize,
    /// The questions whose answers the next commit consumes.
    answered: Vec<(QuestionId, Arc<str>)>,
    /// The open questions of the nodes that run again without an answer.
    replaced: Vec<(QuestionId, Arc<str>)>,
    /// The identity of the present step, without the names of its nodes.
    origin: (RunId, u64),
    /// A commit that was sent, and whose outcome is not known yet.
    unsettled: Option<Commit>,
    steps: u64,
    /// The time for which earlier owners have had the run.
    consumed_before: Duration,
    since: Instant,
    /// The outcome of the run, once the commit that has it succeeded.
    ended: Option<RunStatus>,
}

/// The beginning of a run, for its recorder.
#[derive(Debug, Default)]
pub(super) struct RecordedFrom {
    pub(super) number: u64,
    pub(super) parent: Option<CheckpointId>,
    pub(super) state: Option<Bytes>,
    pub(super) delta_bytes: usize,
    pub(super) answered: Vec<(QuestionId, Arc<str>)>,
    pub(super) replaced: Vec<(QuestionId, Arc<str>)>,
    pub(super) origin: Option<(RunId, u64)>,
    pub(super) steps: u64,
    pub(super) consumed: Duration,
    /// The progress of the step at which the run begins.
    pub(super) progress: Vec<ProgressRecord>,
    /// Set if an answer begins the run.
    pub(super) answers: bool,
    /// The answers, by the names of the nodes.
    pub(super) open_answers: Vec<(Arc<str>, Answer)>,
}

impl<S: State> ThreadRecorder<S> {
    #[allow(clippy::too_many_arguments, reason = "a recorder has all that a commit needs")]
    pub(super) fn new(
        session: Arc<Session>,
        run: RunId,
        epoch: u64,
        values: Values<S>,
        graph_hash: u64,
        stops: Stops,
        tracker: Arc<RunTracker>,
        deletes_thread: bool,
        from: RecordedFrom,
    ) -> Self {
        let RecordedFrom { number, parent, state, delta_bytes, answered, replaced, steps, consumed, .. } = from;
        let RecordedFrom { origin, progress, answers, open_answers, .. } = from;
        let branches = Branches::new(Arc::clone(&session), run, epoch, values, progress, answers, open_answers);
        let written = Written {
            number,
            parent,
            state,
            delta_bytes,
            answered,
            replaced,
            origin: origin.unwrap_or((run, steps + 1)),
            unsettled: None,
            steps,
            consumed_before: consumed,
            since: Instant::now(),
            ended: None,
        };
        let written = Mutex::new(written);
        let group = Mutex::default();
        Self {
            session,
            run,
            epoch,
            values,
            graph_hash,
            stops,
            tracker,
            deletes_thread,
            branches,
            is_discarded: AtomicBool::new(false),
            group,
            written,
        }
    }

    /// Returns the identity of the present step at this node.
    pub(super) fn step_of(&self, node: &str) -> Arc<str> {
        super::position::step_of(self.written.lock().origin, node)
    }

    /// Ends the run with a commit that makes no checkpoint.
    pub(super) async fn end(&self, end: RunEnd, questions: Vec<NewQuestion>) -> Result<(), StoreError> {
        let mut commit = self.new_commit();
        self.replace_questions(&mut commit, &questions);
        if self.is_discarded.swap(false, Ordering::Relaxed) {
            commit.clears = self.branches.end().await;
        } else {
            self.branches.flush().await?;
        }
        commit.questions = questions;
        commit.end = Some(end);
        self.send(commit, None, false).await.map(drop)
    }

    /// Sends a commit again whose outcome is not known, because the run was interrupted. Returns the end of the run, if that
    /// commit or an earlier one has ended it.
    pub(super) async fn settle(&self) -> Result<Option<RunStatus>, StoreError> {
        let unsettled = self.written.lock().unsettled.clone();
        if let Some(commit) = unsettled {
            // The state that the next difference would need is unknown now, but no step follows.
            self.send(commit, None, true).await?;
        }
        Ok(self.written.lock().ended)
    }

    /// Gives the run up, for another process or for the next start of this one.
    pub(super) async fn release(&self) -> Result<(), StoreError> {
        let flushed = self.branches.flush().await;
        let consumed = self.consumed();
        let (released, _) = repeatedly(|| self.session.store.release_run(self.run, self.epoch, consumed)).await;
        match released {
            // Another owner has it, or an attempt whose answer was lost has released it.
            Err(error) if *error.kind() == StoreErrorKind::Fenced => Ok(()),
            // Nodes of branches whose records are lost run again.
            released => released.and(flushed),
        }
    }

    /// Gives the run up without patience. A run that is not released is found by [`recover`](crate::CompiledGraph::recover).
    pub(super) async fn release_once(&self) {
        if let Err(error) = self.session.store.release_run(self.run, self.epoch, self.consumed()).await {
            catch_panic(|| tracing::debug!(run = %self.run, %error, "a run was not released"));
        }
    }

    /// Returns the answer to a commit that may have been sent before. A run that is gone after an end that deletes it has
    /// ended so, and nothing else can tell.
    async fn first_answer(
        &self,
        committed: Result<Committed, StoreError>,
        commit: &Commit,
    ) -> Result<Committed, StoreError> {
        let deletes = commit.end.as_ref().is_some_and(|end| end.rolls_back || end.deletes_thread);
        match committed {
            Err(error) if deletes && *error.kind() == StoreErrorKind::Fenced => {
                let (run, _) = repeatedly(|| self.session.store.run(self.run)).await;
                run?.map_or_else(|| Ok(Committed::default()), |_| Err(error))
            }
            committed => committed,
        }
    }

    fn consumed(&self) -> Duration {
        let written = self.written.lock();
        written.consumed_before + written.since.elapsed()
    }

    fn new_commit(&self) -> Commit {
        let consumed = self.consumed();
        let written = self.written.lock();
        let mut commit = Commit::new(self.run, self.epoch, written.number + 1, written.parent);
        commit.steps = written.steps;
        commit.consumed = consumed;
        commit
    }

    /// Ends the questions that new ones take the place of: those of the same nodes, answered or not.
    fn replace_questions(&self, commit: &mut Commit, questions: &[NewQuestion]) {
        let written = self.written.lock();
        let is_asked_anew = |node: &Arc<str>| questions.iter().any(|question| question.node == *node);
        let of = |known: &[(QuestionId, Arc<str>)]| {
            known.iter().filter(|(_, node)| is_asked_anew(node)).map(|(question, _)| *question).collect()
        };
        commit.closes = of(&written.answered);
        commit.drops = of(&written.replaced);
    }

    /// Ends the questions with which the run has begun, because their step has ended.
    fn end_questions(&self, commit: &mut Commit) {
        let written = self.written.lock();
        commit.closes = written.answered.iter().map(|(question, _)| *question).collect();
        commit.drops = written.replaced.iter().map(|(question, _)| *question).collect();
    }

    /// Sends a commit until the store has an answer. `state` is the state's JSON after it; `was_sent` is set if the commit
    /// was sent before.
    async fn send(
        &self,
        commit: Commit,
        state: Option<(Bytes, usize)>,
        was_sent: bool,
    ) -> Result<Committed, StoreError> {
        let (number, steps, ended) = (commit.number, commit.steps, commit.end.as_ref().map(|end| end.status));
        self.written.lock().unsettled = Some(commit.clone());
        let (mut committed, was_repeated) = repeatedly(|| self.session.store.commit(commit.clone())).await;
        if was_sent || was_repeated {
            committed = self.first_answer(committed, &commit).await;
        }
        let committed = committed?;
        let mut written = self.written.lock();
        written.unsettled = None;
        written.number = number;
        written.steps = steps;
        written.ended = ended;
        written.answered.clear();
        written.replaced.clear();
        // The next step begins with this commit, unless the run ends with it.
        written.origin = (self.run, steps + 1);
        if committed.checkpoint.is_some() {
            written.parent = committed.checkpoint;
        }
        if let Some((json, delta_bytes)) = state {
            written.state = Some(json);
            written.delta_bytes = delta_bytes;
        }
        drop(written);
        if let Some(kind) = committed.cancel {
            self.session.cancel(self.run, kind);
        }
        Ok(committed)
    }

    /// Returns the values of the checkpoint of this state, with the JSON of the state.
    fn new_values(&self, state: &S) -> Result<(NewValues, Option<(Bytes, usize)>), ThreadError> {
        let Some(json) = self.values.json(state)? else {
            return Ok((NewValues::Snapshot(Values::kept(state)), None));
        };
        let written = self.written.lock();
        let json = Bytes::from(json);
        let (values, delta_bytes) = super::codec::difference(written.state.as_ref(), &json, written.delta_bytes)?;
        Ok((values, Some((json, delta_bytes))))
    }

    async fn record_step(&self, step: EndedStep<'_>) -> Result<(), RunErrorKind> {
        let EndedStep { node, next, state, steps, tasks } = step;
        let Some(state) = state.downcast_ref::<S>() else { return Ok(()) };
        let unwritable =
            |error: ThreadError| RunErrorKind::Unwritable { node: Arc::clone(&node), error: error.to_string() };
        let (values, json) = self.new_values(state).map_err(unwritable)?;
        let mut commit = self.new_commit();
        commit.steps = steps as u64;
        commit.tasks = tasks;
        self.end_questions(&mut commit);
        commit.clears = self.branches.end().await;
        *self.group.lock() = None;
        let position = match &next {
            Some(next) => Position::reached(next, (self.run, commit.steps + 1)),
            None => Position::end(),
        };
        let nodes = next.as_ref().map_or_else(Vec::new, |next| next.nodes.clone());
        let stored = position.stored(self.values.are_kept()).map_err(unwritable)?;
        let mut checkpoint = NewCheckpoint::new(Source::Loop, values, nodes.clone(), stored);
        checkpoint.state_version = Values::<S>::version();
        checkpoint.graph_hash = self.graph_hash;
        commit.checkpoint = Some(checkpoint);
        let stops = next.as_ref().is_some_and(|next| self.stops.stop_between(&node, next));
        commit.end = self.end_after(next.as_ref(), stops);
        self.send(commit, json, false).await.map_err(RunErrorKind::Store)?;
        if stops {
            return Err(RunErrorKind::Stopped { next: nodes });
        }
        match next {
            // A run that outlives the process is not waited for: it goes on elsewhere, or after the next start.
            Some(next) if self.is_released_by_shutdown() => {
                Err(RunErrorKind::ShutDown { node: next.nodes.first().cloned().unwrap_or(node) })
            }
            _ => Ok(()),
        }
    }

    fn end_after(&self, next: Option<&NextStep<'_>>, stops: bool) -> Option<RunEnd> {
        let mut end = match next {
            None => RunEnd::new(RunStatus::Done, Rest::Idle),
            Some(_) if stops => RunEnd::new(RunStatus::Waiting, Rest::Paused),
            Some(_) => return None,
        };
        end.deletes_thread = self.deletes_thread && next.is_none();
        Some(end)
    }

    fn is_released_by_shutdown(&self) -> bool {
        self.session.store.capabilities().is_durable && self.tracker.is_draining()
    }
}

impl<S: State> ThreadRecorder<S> {
    fn group(&self) -> Arc<str> {
        self.group.lock().clone().unwrap_or_else(|| self.run.to_string().into())
    }
}

/// Returns the error of a run whose progress cannot be written or read.
fn unusable(error: ThreadError) -> RunErrorKind {
    match error {
        ThreadError::Store(error) => RunErrorKind::Store(error),
        error => RunErrorKind::NotStarted { error: error.to_string() },
    }
}

impl<S: State> Recorder for ThreadRecorder<S> {
    fn record<'a>(&'a self, step: EndedStep<'a>) -> BoxFuture<'a, Result<(), RunErrorKind>> {
        Box::pin(self.record_step(step))
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn begin_group(&self, step: StepId) {
        *self.group.lock() = Some(format!("{}/{}", step.run(), step.number()).into());
    }

    fn items(&self, input: InputType) -> Result<Option<Vec<Input>>, RunErrorKind> {
        self.branches.items(input).map_err(unusable)
    }

    fn record_items(&self, items: &[Input], input: InputType) -> Result<(), RunErrorKind> {
        self.branches.record_items(self.group(), items, input).map_err(unusable)
    }

    fn branch(&self, key: &str, input: &dyn Fn(&str) -> InputType) -> Result<Option<BranchRecord>, RunErrorKind> {
        self.branches.branch(key, input).map_err(unusable)
    }

    fn record_branch(&self, key: &str, record: BranchRecord, input: Option<InputType>) -> Result<(), RunErrorKind> {
        self.branches.record_branch(self.group(), key, record, input).map_err(unusable)
    }

    fn discard_branches(&self) {
        self.is_discarded.store(true, Ordering::Relaxed);
    }

    fn answers(&self) -> bool {
        self.branches.answers
    }

    fn is_answered(&self, node: &str) -> bool {
        self.branches.is_answered(node)
    }

    fn take_answer(&self, node: &str) -> Option<Answer> {
        self.branches.take_answer(node)
    }
}

impl<S: State> fmt::Debug for ThreadRecorder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadRecorder").field("run", &self.run).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// Returns a question of the run that a node has asked.
pub(super) fn new_question(node: Arc<str>, step: Arc<str>, json: Vec<u8>) -> NewQuestion {
    NewQuestion::new(QuestionId::new(), node, step, Stored::from(json))
}

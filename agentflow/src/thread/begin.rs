//! The beginning of a run on a thread: it is accepted by the store, and waits for its turn.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

use super::{
    codec::{self, Values},
    error::ThreadError,
    input::{Input, InputKind},
    position::Position,
    recorder::RecordedFrom,
};
use crate::{
    config::RunConfig,
    error::NodeError,
    graph::app::App,
    panics::catch_panic,
    question::Answer,
    run::{RunId, recorder::Resumption},
    session::{Session, patiently, repeatedly},
    state::State,
    store::{
        BeginRun, Begun, CheckpointId, CheckpointRow, NewAnswer, NewCheckpoint, NewRun, NewValues, OnBusyThread,
        OwnerId, ProgressRecord, QuestionId, QuestionRow, QuestionStatus, RunRow, RunStart, RunStarted, RunStatus,
        Source, Stored, ThreadId, Timestamp,
    },
};

/// The name that stands for the start of the graph in a checkpoint that was made before the input was merged.
const START_NODE: &str = "__start__";

/// The place and the state at which a run begins.
pub(super) struct Beginning<S> {
    pub(super) state: S,
    pub(super) resumption: Resumption,
    pub(super) epoch: u64,
    pub(super) from: RecordedFrom,
}

/// All that a run has before it begins.
pub(super) struct Request<S: State> {
    pub(super) run: RunId,
    pub(super) thread: ThreadId,
    pub(super) input: Input<S>,
    pub(super) config: RunConfig,
}

/// The outcome of a request.
pub(super) enum Accepted<S> {
    Running(Box<Beginning<S>>),
    Queued,
    /// The run was accepted before.
    Known(Box<RunRow>),
}

/// The beginning of a run and its writes, computed from the thread's head.
struct Prepared<S> {
    start: RunStart,
    state: S,
    /// The JSON of the state, and the length of the differences since the last whole state.
    json: Option<(Bytes, usize)>,
    position: Position,
    /// The answers, by the names of the nodes that asked.
    answers: Vec<(Arc<str>, Answer)>,
    /// The questions whose answers the run begins with, with their nodes.
    answered: Vec<(QuestionId, Arc<str>)>,
    /// The open questions of the nodes that run again without an answer.
    replaced: Vec<(QuestionId, Arc<str>)>,
    /// The progress of earlier runs in the step at which the run begins.
    progress: Vec<ProgressRecord>,
    /// Set if the run goes on at the step of the head: whether the step is in the same graph as then.
    goes_on: Option<bool>,
}

impl<S> Prepared<S> {
    fn new(start: RunStart, state: S, json: Option<(Bytes, usize)>, position: Position) -> Self {
        let (answers, answered, replaced, progress) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { start, state, json, position, answers, answered, replaced, progress, goes_on: None }
    }
}

/// The services with which a run is prepared.
pub(super) struct Preparer<'a, S: State, C> {
    pub(super) app: &'a App<S, C>,
    pub(super) session: &'a Session,
    pub(super) values: Values<S>,
}

impl<S: State + Default, C> Preparer<'_, S, C> {
    /// Asks the store to accept the run, which begins at once if nothing is in its way.
    pub(super) async fn begin(&self, request: &Request<S>) -> Result<Accepted<S>, ThreadError> {
        let Request { run, thread, input, config } = request;
        let options = config.thread_options();
        let mut new = NewRun::new(
            *run,
            thread.clone(),
            Arc::clone(&self.app.name),
            self.session.owner(),
            input.stored(&self.values)?,
            Stored::from(config.to_json()),
        );
        new.metadata = options.metadata.clone();
        new.not_before = options.not_before;
        // An answer waits for its turn, because the questions stay until they are answered.
        let by_default = match input.kind {
            InputKind::Answers(_) => OnBusyThread::Queue,
            _ => OnBusyThread::Reject,
        };
        let on_busy = options.on_busy.unwrap_or(by_default);
        loop {
            let prepared = match self.prepare(request).await {
                Ok(prepared) => prepared,
                // A run with this id that began before has consumed what the input names.
                Err(error) => match patiently(|| self.session.store.run(*run)).await? {
                    Some(known) if known.run.thread == *thread => return Ok(Accepted::Known(Box::new(known))),
                    _ => return Err(error),
                },
            };
            let accept = BeginRun::new(new.clone(), on_busy, prepared.start.clone());
            let (begun, was_repeated) = repeatedly(|| self.session.store.begin_run(accept.clone())).await;
            let begun = first_answer(begun?, was_repeated, new.owner, &accept.start);
            if let Begun::Queued { .. } = begun {
                self.cancel_the_others(thread, *run, on_busy);
            }
            // Else another run, or an edit, has moved the head meanwhile.
            if let Some(accepted) = self.began(begun, thread, prepared).await? {
                return Ok(accepted);
            }
        }
    }

    /// Starts a run that the store has accepted and queued. Returns `None` if it is not its turn yet.
    pub(super) async fn start(&self, request: &Request<S>) -> Result<Option<Beginning<S>>, ThreadError> {
        loop {
            let prepared = self.prepare(request).await?;
            let (owner, start) = (self.session.owner(), prepared.start.clone());
            let started = repeatedly(|| self.session.store.start_run(request.run, owner, start.clone()));
            let (begun, was_repeated) = started.await;
            let begun = first_answer(begun?, was_repeated, owner, &start);
            match self.began(begun, &request.thread, prepared).await? {
                Some(Accepted::Running(beginning)) => return Ok(Some(*beginning)),
                Some(Accepted::Queued | Accepted::Known(_)) => return Ok(None),
                None => {}
            }
        }
    }

    /// Cancels the thread's other runs in this process at once. Those of other processes are marked in the store.
    fn cancel_the_others(&self, thread: &ThreadId, run: RunId, on_busy: OnBusyThread) {
        use crate::store::CancelKind;
        let kind = match on_busy {
            OnBusyThread::Cancel => CancelKind::Cancel,
            OnBusyThread::Rollback => CancelKind::Rollback,
            OnBusyThread::Reject | OnBusyThread::Queue => return,
        };
        for (other, live) in self.session.live_runs() {
            if live.is_running && live.thread == *thread && other != run {
                self.session.cancel(other, kind);
            }
        }
    }

    /// Returns `None` if the head has moved, and the run must be prepared again.
    async fn began(
        &self,
        begun: Begun,
        thread: &ThreadId,
        prepared: Prepared<S>,
    ) -> Result<Option<Accepted<S>>, ThreadError> {
        match begun {
            Begun::Running(started) => {
                let prepared = self.brought_up_to_date(thread, prepared).await?;
                self.beginning(&started, prepared).map(|beginning| Some(Accepted::Running(Box::new(beginning))))
            }
            Begun::Queued { .. } => Ok(Some(Accepted::Queued)),
            Begun::HeadMoved(_) => Ok(None),
            Begun::Known(row) => Ok(Some(Accepted::Known(row))),
            Begun::Busy { run, is_driven } => Err(ThreadError::Busy { run, is_driven }),
            Begun::NotOpen { question, status: Some(QuestionStatus::Answered | QuestionStatus::Closed) } => {
                Err(ThreadError::AlreadyAnswered { question })
            }
            Begun::NotOpen { question, .. } => Err(ThreadError::NoSuchQuestion { question }),
            Begun::OtherGraph(graph) => Err(ThreadError::OtherGraph { graph }),
            Begun::NoSuchCheckpoint(checkpoint) => Err(ThreadError::NoSuchCheckpoint { checkpoint }),
            Begun::Gone => Err(ThreadError::CancelledBeforeStart),
        }
    }

    fn beginning(&self, started: &RunStarted, prepared: Prepared<S>) -> Result<Beginning<S>, ThreadError> {
        let Prepared { start, state, json, position, answers, answered, replaced, progress, .. } = prepared;
        let (json, delta_bytes) = json.map_or((None, 0), |(json, bytes)| (Some(json), bytes));
        let from = RecordedFrom {
            parent: started.checkpoints.last().copied().or(start.base),
            state: json,
            delta_bytes,
            answered,
            replaced,
            progress,
            answers: !start.answers.is_empty(),
            origin: position.origin,
            ..RecordedFrom::default()
        };
        let (resumption, open_answers) = self.resumption(position, 0, answers)?;
        let from = RecordedFrom { open_answers, ..from };
        Ok(Beginning { state, resumption, epoch: started.epoch, from })
    }

    /// Returns where the run goes on, and the answers for the nodes in the branches of a group.
    #[allow(clippy::type_complexity, reason = "the two belong together only here")]
    pub(super) fn resumption(
        &self,
        position: Position,
        steps: usize,
        mut answers: Vec<(Arc<str>, Answer)>,
    ) -> Result<(Resumption, Vec<(Arc<str>, Answer)>), ThreadError> {
        let asks = self.app.answer_of(&position.path).map_err(super::unreadable)?.is_some();
        let own = if asks { answers.pop().map(|(_, answer)| answer) } else { None };
        let mut resumption = position.resumption(self.app, steps)?;
        resumption.answer = own;
        Ok((resumption, answers))
    }

    /// Computes what the start of the run writes.
    async fn prepare(&self, request: &Request<S>) -> Result<Prepared<S>, ThreadError> {
        let Request { thread, input, .. } = request;
        let head = patiently(|| self.session.store.load(thread, None)).await?;
        let head_id = head.as_ref().map(|head| head.id);
        let (base, is_branch) = match input.checkpoint {
            Some(id) if Some(id) != head_id => {
                let base = patiently(|| self.session.store.load(thread, Some(id))).await?;
                (Some(base.ok_or(ThreadError::NoSuchCheckpoint { checkpoint: id })?), true)
            }
            _ => (head, false),
        };
        let base = Base::load(base.as_ref(), &self.values)?;
        let is_same_graph = base.row.is_none_or(|row| row.graph_hash == self.app.hash);
        let mut start = RunStart::at(head_id);
        start.base = base.id();
        match &input.kind {
            InputKind::Start => self.at_start(base, start, request.run, input.update.as_ref()),
            InputKind::Resume => {
                let branch = is_branch.then_some(request.run);
                let mut prepared = self.resumed(base, start, branch, input.update.as_ref())?;
                if !is_branch {
                    self.take_questions(thread, &mut prepared).await?;
                    prepared.goes_on = Some(is_same_graph);
                }
                Ok(prepared)
            }
            InputKind::Answers(answers) => {
                let mut prepared = self.answered(base, start, thread, answers, input.update.as_ref()).await?;
                prepared.goes_on = Some(is_same_graph);
                if is_same_graph {
                    // The other questions stay open, and their branches do not run.
                    prepared.replaced.clear();
                }
                Ok(prepared)
            }
            InputKind::Goto { node, input: value } => self.gone_to(base, start, request, node, value.as_deref()),
        }
    }

    /// Begins at the graph's start: with the checkpoint before the input, and the one after it.
    fn at_start(
        &self,
        base: Base<'_, S>,
        mut start: RunStart,
        run: RunId,
        update: Option<&S::Update>,
    ) -> Result<Prepared<S>, ThreadError> {
        let entry = Position::first(vec![self.app.entry()], run);
        start.drops_questions = true;
        let (values, json) = base.values(&self.values)?;
        let before = self.checkpoint(Source::Input, values, vec![START_NODE.into()], &entry)?;
        start.checkpoints.push(before);
        let base = Base { json, ..base };
        let (state, values, json) = self.merged(base, update)?;
        let nodes = self.app.nodes_at(&entry.path).map_err(super::unreadable)?;
        start.checkpoints.push(self.checkpoint(Source::Loop, values, nodes, &entry)?);
        Ok(Prepared::new(start, state, json, entry))
    }

    /// Goes on at the position of the base. `branch` is the run, if it makes a branch.
    fn resumed(
        &self,
        base: Base<'_, S>,
        mut start: RunStart,
        branch: Option<RunId>,
        update: Option<&S::Update>,
    ) -> Result<Prepared<S>, ThreadError> {
        let mut position = base.position.clone().filter(|position| !position.is_end());
        let Some(position) = position.as_mut() else { return Err(ThreadError::NothingToResume) };
        if let Some(run) = branch {
            // What runs again on a branch is another step.
            position.origin = Some((run, 1));
        }
        let nodes = self.app.nodes_at(&position.path).map_err(super::unreadable)?;
        let source = match update {
            Some(_) => Some(Source::Update),
            None => branch.map(|_| Source::Fork),
        };
        let (state, values, json) = self.merged(base, update)?;
        if let Some(source) = source {
            start.checkpoints.push(self.checkpoint(source, values, nodes, position)?);
        }
        Ok(Prepared::new(start, state, json, position.clone()))
    }

    /// Goes on at the nodes that asked.
    async fn answered(
        &self,
        base: Base<'_, S>,
        start: RunStart,
        thread: &ThreadId,
        answers: &[(QuestionId, Arc<serde_json::value::RawValue>)],
        update: Option<&S::Update>,
    ) -> Result<Prepared<S>, ThreadError> {
        let questions = patiently(|| self.session.store.questions(thread, None)).await?;
        let mut prepared = match self.resumed(base, start, None, update) {
            Err(ThreadError::NothingToResume) => {
                let question = answers.first().map_or_else(|| QuestionId::from_u128(0), |(question, _)| *question);
                return Err(not_open(&questions, question));
            }
            other => other?,
        };
        // Earlier answers to other nodes of the group are closed by the join. Their nodes have them if they run again.
        for row in questions.iter().filter(|row| row.status == QuestionStatus::Answered) {
            if prepared.position.has_asked(row) {
                prepared.answers.push((Arc::clone(&row.asked.node), self.stored_answer(row)?));
                prepared.answered.push((row.asked.id, Arc::clone(&row.asked.node)));
            }
        }
        for (question, answer) in answers {
            let row = questions.iter().find(|row| row.asked.id == *question);
            let Some(row) = row.filter(|row| row.status == QuestionStatus::Open) else {
                return Err(not_open(&questions, *question));
            };
            let decoded = self.decode_answer(row, answer.get())?;
            prepared.start.answers.push(NewAnswer::new(*question, Stored::from(answer.get().as_bytes().to_vec())));
            prepared.answered.push((*question, Arc::clone(&row.asked.node)));
            prepared.answers.push((Arc::clone(&row.asked.node), decoded));
        }
        for row in questions.iter().filter(|row| row.status == QuestionStatus::Open) {
            if !answers.iter().any(|(question, _)| *question == row.asked.id) {
                prepared.replaced.push((row.asked.id, Arc::clone(&row.asked.node)));
            }
        }
        Ok(prepared)
    }

    /// Adds the progress of the step, and the answers to it, once nobody else can change them: a run that answers one of
    /// several questions leaves the head as it is, so that it may have been there since the preparation.
    async fn brought_up_to_date(
        &self,
        thread: &ThreadId,
        mut prepared: Prepared<S>,
    ) -> Result<Prepared<S>, ThreadError> {
        let Some(is_same_graph) = prepared.goes_on else { return Ok(prepared) };
        prepared.progress = self.progress(thread, is_same_graph).await?;
        for row in patiently(|| self.session.store.questions(thread, Some(QuestionStatus::Answered))).await? {
            let is_known = prepared.answered.iter().any(|(question, _)| *question == row.asked.id);
            if !is_known && prepared.position.has_asked(&row) {
                prepared.answers.insert(0, (Arc::clone(&row.asked.node), self.stored_answer(&row)?));
                prepared.answered.insert(0, (row.asked.id, row.asked.node));
            }
        }
        Ok(prepared)
    }

    /// Returns the progress of the step at the head. That of another version of the graph is of no use: its branches have
    /// other names, so that the group starts again.
    async fn progress(&self, thread: &ThreadId, is_same_graph: bool) -> Result<Vec<ProgressRecord>, ThreadError> {
        let progress = patiently(|| self.session.store.progress(thread)).await?;
        Ok(if is_same_graph { progress } else { discarded(thread, &progress) })
    }

    /// Gives the node at the position the answer that it had when it failed or was cut off. Its open question is replaced by
    /// a new one, or by its result.
    async fn take_questions(&self, thread: &ThreadId, prepared: &mut Prepared<S>) -> Result<(), ThreadError> {
        for row in patiently(|| self.session.store.questions(thread, None)).await? {
            match row.status {
                QuestionStatus::Open => prepared.replaced.push((row.asked.id, row.asked.node)),
                // An answer to a step that the thread has left meanwhile is of no use.
                QuestionStatus::Answered if prepared.position.has_asked(&row) => {
                    prepared.answers.push((Arc::clone(&row.asked.node), self.stored_answer(&row)?));
                    prepared.answered.push((row.asked.id, row.asked.node));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads the answer that the store has to a question.
    pub(super) fn stored_answer(&self, row: &QuestionRow) -> Result<Answer, ThreadError> {
        let json = row.answer.as_ref().and_then(|answer| answer.json());
        self.decode_answer(row, &String::from_utf8_lossy(json.map_or(b"null", |json| json)))
    }

    /// Reads an answer as the type that the node takes.
    fn decode_answer(&self, row: &QuestionRow, answer: &str) -> Result<Answer, ThreadError> {
        let node = &row.asked.node;
        let answer_type = self.app.answer_of_node(node).map_err(super::unreadable)?;
        let Some(answer_type) = answer_type else {
            let reason = "it takes no answer in this version of the graph";
            return Err(ThreadError::WrongNode { node: Arc::clone(node), reason });
        };
        answer_type.decode(answer).map_err(|error| ThreadError::WrongAnswer {
            node: Arc::clone(node),
            expected: answer_type.name(),
            error: error.to_string(),
        })
    }

    /// Begins at a node, with a checkpoint that says so.
    fn gone_to(
        &self,
        base: Base<'_, S>,
        mut start: RunStart,
        request: &Request<S>,
        node: &Arc<str>,
        value: Option<&serde_json::value::RawValue>,
    ) -> Result<Prepared<S>, ThreadError> {
        let wrong = |reason| ThreadError::WrongNode { node: Arc::clone(node), reason };
        let path: Vec<Arc<str>> = node.split('/').map(Arc::from).collect();
        let nodes = self.app.nodes_at(&path).map_err(|_| wrong("the graph has no such node outside of its groups"))?;
        let input_type = self.app.input_of(&path).map_err(super::unreadable)?;
        let mut position = Position::first(path, request.run);
        position = match (value, input_type.is_none()) {
            (None, true) => position,
            (None, false) => return Err(wrong("it takes an `input`: use `goto_with`")),
            (Some(_), true) => return Err(wrong("it takes no `input`: use `goto`")),
            (Some(json), false) => {
                let input = codec::decode_input(json, input_type);
                let input = input.map_err(|error| ThreadError::WrongInput { error: error.to_string() })?;
                position.with_input(input, input_type)
            }
        };
        start.drops_questions = true;
        let (state, values, json) = self.merged(base, request.input.update.as_ref())?;
        start.checkpoints.push(self.checkpoint(Source::Update, values, nodes, &position)?);
        Ok(Prepared::new(start, state, json, position))
    }

    fn checkpoint(
        &self,
        source: Source,
        values: NewValues,
        nodes: Vec<Arc<str>>,
        position: &Position,
    ) -> Result<NewCheckpoint, ThreadError> {
        let mut checkpoint = NewCheckpoint::new(source, values, nodes, position.stored(self.values.are_kept())?);
        checkpoint.state_version = Values::<S>::version();
        checkpoint.graph_hash = self.app.hash;
        Ok(checkpoint)
    }

    /// Merges an update into the state of the base. Returns the state, the values of a checkpoint that has it, and its JSON.
    #[allow(clippy::type_complexity, reason = "the three belong together only here")]
    fn merged(
        &self,
        base: Base<'_, S>,
        update: Option<&S::Update>,
    ) -> Result<(S, NewValues, Option<(Bytes, usize)>), ThreadError> {
        let Base { mut state, json, row, .. } = base;
        if let Some(update) = update {
            // The reducers are user code.
            let merged = catch_unwind(AssertUnwindSafe(|| state.apply(update.clone())));
            merged.map_err(|panic| ThreadError::WrongInput { error: NodeError::panicked(panic).to_string() })?;
        }
        let Some(new) = self.values.json(&state)? else {
            let values = if update.is_none() && row.is_some() {
                NewValues::Same
            } else {
                NewValues::Snapshot(Values::kept(&state))
            };
            return Ok((state, values, None));
        };
        let new = Bytes::from(new);
        let (old, bytes) = json.map_or((None, 0), |(json, bytes)| (Some(json), bytes));
        let (values, bytes) = codec::difference(old.as_ref(), &new, bytes)?;
        Ok((state, values, Some((new, bytes))))
    }
}

/// The checkpoint at which a run begins; without one the thread is new.
pub(super) struct Base<'a, S> {
    row: Option<&'a CheckpointRow>,
    pub(super) state: S,
    /// The JSON of the state, and the length of the differences since the last whole state.
    pub(super) json: Option<(Bytes, usize)>,
    pub(super) position: Option<Position>,
}

impl<'a, S: State + Default> Base<'a, S> {
    pub(super) fn load(row: Option<&'a CheckpointRow>, values: &Values<S>) -> Result<Self, ThreadError> {
        let Some(checkpoint) = row else {
            return Ok(Self { row, state: S::default(), json: None, position: None });
        };
        let state = values.load(checkpoint)?;
        let bytes = usize::try_from(checkpoint.delta_bytes).unwrap_or(usize::MAX);
        // The difference is computed from the stored JSON, unless it is that of another version.
        let is_current = checkpoint.state_version == Values::<S>::version();
        let json = checkpoint.values.json().filter(|_| is_current).map(|json| (json.clone(), bytes));
        Ok(Self { row, state, json, position: Some(Position::load(&checkpoint.position)?) })
    }

    fn id(&self) -> Option<CheckpointId> {
        self.row.map(|row| row.id)
    }

    /// Returns the values of a checkpoint with the same state, and the JSON of it.
    #[allow(clippy::type_complexity, reason = "the two belong together only here")]
    fn values(&self, values: &Values<S>) -> Result<(NewValues, Option<(Bytes, usize)>), ThreadError> {
        // The JSON of an older version of the state is written anew.
        if self.row.is_some() && (self.json.is_some() || values.are_kept()) {
            return Ok((NewValues::Same, self.json.clone()));
        }
        match values.json(&self.state)? {
            None => Ok((NewValues::Snapshot(Values::kept(&self.state)), None)),
            Some(json) => {
                let json = Bytes::from(json);
                Ok((NewValues::Snapshot(Stored::Json(json.clone())), Some((json, 0))))
            }
        }
    }
}

/// Returns the answer to the first attempt to accept or to start a run, if that answer was lost: the repetition finds the run.
fn first_answer(begun: Begun, was_repeated: bool, owner: OwnerId, start: &RunStart) -> Begun {
    match begun {
        Begun::Known(row) if was_repeated && row.owner == owner => match row.status {
            RunStatus::Running if row.commit == 0 && row.head_before == start.expected_head => {
                Begun::Running(RunStarted::new(row.epoch, row.last_checkpoint.into_iter().collect()))
            }
            RunStatus::Queued if row.last_checkpoint.is_none() => Begun::Queued { behind: None },
            _ => Begun::Known(row),
        },
        begun => begun,
    }
}

/// Logs that progress is of no use, if there is some. Returns none.
pub(super) fn discarded(thread: &ThreadId, progress: &[ProgressRecord]) -> Vec<ProgressRecord> {
    if !progress.is_empty() {
        catch_panic(
            || tracing::warn!(%thread, "the graph has changed: a group starts again from the state at its fork"),
        );
    }
    Vec::new()
}

fn not_open(questions: &[QuestionRow], question: QuestionId) -> ThreadError {
    match questions.iter().find(|row| row.asked.id == question).map(|row| row.status) {
        Some(QuestionStatus::Answered | QuestionStatus::Closed) => ThreadError::AlreadyAnswered { question },
        _ => ThreadError::NoSuchQuestion { question },
    }
}

/// The longest time between two looks at a queued run.
pub(super) const QUEUE_POLL: Duration = Duration::from_secs(1);

/// Returns the time until a run may start.
pub(super) fn time_until(not_before: Option<Timestamp>) -> Duration {
    not_before.map_or(Duration::ZERO, |time| time.since(Timestamp::now()))
}

//! [`Harness`]: two handles on one data set, and short ways to use them.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::Value;

use super::{
    super::{
        BeginRun, Begun, CheckpointId, CheckpointRow, Claim, Claimed, Commit, Committed, HistoryFilter, NewAnswer,
        NewCheckpoint, NewQuestion, NewRun, NewTask, NewValues, OnBusyThread, OwnerId, QuestionId, QuestionStatus,
        Rest, RunEnd, RunRow, RunStart, RunStatus, Source, Store, StoreError, StoreErrorKind, Stored, StoredTaskFilter,
        StoredTaskId, TakeOver, TakenRun, TaskRow, ThreadId, ThreadStatus,
    },
    fixture::Fixture,
};
use crate::run_id::RunId;

/// The result of a check, or of a part of one.
pub(super) type Checked<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// The lease of the owners.
pub(super) const LEASE: Duration = Duration::from_secs(30);

/// The graph of the threads.
pub(super) const GRAPH: &str = "graph";

/// One handle of a store, and the owner that joined through it.
#[derive(Clone)]
pub(super) struct Handle {
    pub(super) store: Arc<dyn Store>,
    pub(super) owner: OwnerId,
}

/// A run that an owner drives.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) id: RunId,
    pub(super) thread: ThreadId,
    pub(super) epoch: u64,
    /// The number of the last commit.
    pub(super) number: u64,
    pub(super) last: Option<CheckpointId>,
}

/// Two handles on one data set: `a`, which can die, and `b`.
pub(super) struct Harness<'f> {
    fixture: &'f dyn Fixture,
    pub(super) a: Handle,
    pub(super) b: Handle,
}

impl<'f> Harness<'f> {
    pub(super) async fn new(fixture: &'f dyn Fixture) -> Checked<Self> {
        let (a, b) = (open(fixture).await?, open(fixture).await?);
        Ok(Self { fixture, a, b })
    }

    /// Moves the store's clock forward, and renews the leases of both owners.
    pub(super) async fn advance(&self, duration: Duration) -> Checked {
        self.fixture.advance(duration).await;
        self.a.store.renew(self.a.owner, LEASE).await?;
        self.b.store.renew(self.b.owner, LEASE).await?;
        Ok(())
    }

    /// Ends handle `a` as the death of its process would, waits until its lease is over, and opens it anew, with another
    /// owner. Returns the dead owner.
    pub(super) async fn die(&mut self) -> Checked<OwnerId> {
        let dead = self.kill().await?;
        self.a = open(self.fixture).await?;
        Ok(dead)
    }

    /// Ends handle `a` as the death of its process would, and waits until its lease is over. `a` is another name of `b`
    /// afterwards. Returns the dead owner.
    pub(super) async fn kill(&mut self) -> Checked<OwnerId> {
        let Handle { store, owner } = std::mem::replace(&mut self.a, self.b.clone());
        self.fixture.kill(store).await;
        for _ in 0..2 {
            self.advance(LEASE * 2 / 3).await?;
        }
        Ok(owner)
    }
}

async fn open(fixture: &dyn Fixture) -> Checked<Handle> {
    let (store, owner) = (fixture.open().await, OwnerId::new());
    store.join(owner, LEASE).await?;
    Ok(Handle { store, owner })
}

impl Handle {
    pub(super) fn run(&self, thread: &str) -> NewRun {
        NewRun::new(RunId::new(), thread_id(thread), GRAPH.into(), self.owner, json("{}"), json("{}"))
    }

    /// Returns the start of a run at the head of a thread: a checkpoint with this state, or that of the head.
    pub(super) async fn start_of(&self, thread: &str, state: Option<&str>) -> Checked<RunStart> {
        let head = self.head(thread).await?;
        let mut start = RunStart::at(head);
        let values = match (state, head) {
            (Some(state), _) => NewValues::Snapshot(json(state)),
            (None, Some(_)) => NewValues::Same,
            (None, None) => NewValues::Snapshot(json("{}")),
        };
        start.checkpoints = vec![checkpoint(Source::Input, values)];
        start.drops_questions = true;
        Ok(start)
    }

    /// Asks to begin a run at the head of a thread.
    pub(super) async fn ask_to_begin(&self, run: NewRun, on_busy: OnBusyThread) -> Checked<Begun> {
        let start = self.start_of(run.thread.as_str(), None).await?;
        Ok(self.store.begin_run(BeginRun::new(run, on_busy, start)).await?)
    }

    /// Begins a run that starts at once.
    pub(super) async fn begin(&self, thread: &str) -> Checked<Live> {
        let run = self.run(thread);
        let (id, thread_id) = (run.id, run.thread.clone());
        let begun = self.ask_to_begin(run, OnBusyThread::Reject).await?;
        self.live(id, thread_id, begun).await
    }

    /// Begins a run with a start of its own, which starts at once.
    pub(super) async fn begin_with(&self, thread: &str, start: RunStart) -> Checked<Live> {
        let run = self.run(thread);
        let (id, thread_id) = (run.id, run.thread.clone());
        let begun = self.store.begin_run(BeginRun::new(run, OnBusyThread::Reject, start)).await?;
        self.live(id, thread_id, begun).await
    }

    /// Begins a run that answers a question at the head of a thread.
    pub(super) async fn answer(&self, thread: &str, question: QuestionId, answer: &str) -> Checked<Begun> {
        let start = self.answering(thread, question, answer).await?;
        Ok(self.store.begin_run(BeginRun::new(self.run(thread), OnBusyThread::Queue, start)).await?)
    }

    /// Returns the start of a run that answers a question at the head of a thread.
    pub(super) async fn answering(&self, thread: &str, question: QuestionId, answer: &str) -> Checked<RunStart> {
        let mut start = RunStart::at(self.head(thread).await?);
        start.answers = vec![NewAnswer::new(question, json(answer))];
        Ok(start)
    }

    /// Accepts a run that waits in the queue.
    pub(super) async fn queue(&self, thread: &str) -> Checked<RunId> {
        let run = self.run(thread);
        let id = run.id;
        match self.ask_to_begin(run, OnBusyThread::Queue).await? {
            Begun::Queued { .. } => Ok(id),
            other => unexpected("a run of a busy thread with `Queue`", &other),
        }
    }

    /// Starts a queued run at the head of its thread.
    pub(super) async fn start(&self, run: RunId) -> Checked<Begun> {
        let thread = self.row(run).await?.run.thread;
        let start = self.start_of(thread.as_str(), None).await?;
        Ok(self.store.start_run(run, self.owner, start).await?)
    }

    /// Returns a run that has begun.
    pub(super) async fn live(&self, id: RunId, thread: ThreadId, begun: Begun) -> Checked<Live> {
        let Begun::Running(started) = begun else { return unexpected("a run with nothing in its way", &begun) };
        let last = match started.checkpoints.last() {
            Some(last) => Some(*last),
            None => self.row(id).await?.last_checkpoint,
        };
        Ok(Live { id, thread, epoch: started.epoch, number: 0, last })
    }

    /// Commits a step that sets the field `n` of the state.
    pub(super) async fn step(&self, live: &mut Live, n: u64) -> Checked<CheckpointId> {
        let commit = live.commit_of(&format!(r#"{{"set":{{"n":{n}}}}}"#));
        let committed = self.commit(live, commit).await?;
        committed.checkpoint.ok_or_else(|| "a commit with a checkpoint returns no id".into())
    }

    /// Sends a commit of a run, and moves the run on.
    pub(super) async fn commit(&self, live: &mut Live, commit: Commit) -> Checked<Committed> {
        let number = commit.number;
        let committed = self.store.commit(commit).await?;
        live.number = number;
        live.last = committed.checkpoint.or(live.last);
        Ok(committed)
    }

    /// Ends a run.
    pub(super) async fn end(&self, live: &mut Live, status: RunStatus, rest: Rest) -> Checked {
        let mut commit = live.commit();
        commit.end = Some(RunEnd::new(status, rest));
        self.commit(live, commit).await?;
        Ok(())
    }

    /// Runs a thread once, to its end.
    pub(super) async fn run_once(&self, thread: &str, n: u64) -> Checked<Live> {
        let mut live = self.begin(thread).await?;
        self.step(&mut live, n).await?;
        self.end(&mut live, RunStatus::Done, Rest::Idle).await?;
        Ok(live)
    }

    /// Runs a thread until it asks a question. Returns the run and the question.
    pub(super) async fn run_until_question(&self, thread: &str) -> Checked<(Live, QuestionId)> {
        let mut live = self.begin(thread).await?;
        self.step(&mut live, 0).await?;
        let question = self.ask(&mut live, "step").await?;
        Ok((live, question))
    }

    /// Ends a run with a question.
    pub(super) async fn ask(&self, live: &mut Live, step: &str) -> Checked<QuestionId> {
        let question = NewQuestion::new(QuestionId::new(), "ask".into(), step.into(), json(r#"{"q":1}"#));
        let id = question.id;
        let mut commit = live.commit();
        commit.questions = vec![question];
        commit.end = Some(RunEnd::new(RunStatus::Waiting, Rest::Paused));
        self.commit(live, commit).await?;
        Ok(id)
    }

    pub(super) async fn row(&self, run: RunId) -> Checked<RunRow> {
        self.store.run(run).await?.ok_or_else(|| format!("the run {run} is not there").into())
    }

    pub(super) async fn status(&self, run: RunId) -> Checked<RunStatus> {
        Ok(self.row(run).await?.status)
    }

    pub(super) async fn head(&self, thread: &str) -> Checked<Option<CheckpointId>> {
        Ok(self.store.thread(&thread_id(thread)).await?.and_then(|thread| thread.head))
    }

    pub(super) async fn thread_status(&self, thread: &str) -> Checked<Option<ThreadStatus>> {
        Ok(self.store.thread(&thread_id(thread)).await?.map(|thread| thread.status))
    }

    /// Returns the state at a checkpoint, or at the head.
    pub(super) async fn state(&self, thread: &str, at: Option<CheckpointId>) -> Checked<Value> {
        let row = self.store.load(&thread_id(thread), at).await?;
        value(&row.ok_or_else(|| format!("the checkpoint {at:?} is not there"))?.values)
    }

    pub(super) async fn history(&self, thread: &str) -> Checked<Vec<CheckpointRow>> {
        Ok(self.store.history(&thread_id(thread), HistoryFilter::default()).await?)
    }

    pub(super) async fn question_status(&self, thread: &str, question: QuestionId) -> Checked<Option<QuestionStatus>> {
        let questions = self.store.questions(&thread_id(thread), None).await?;
        Ok(questions.iter().find(|row| row.asked.id == question).map(|row| row.status))
    }

    pub(super) async fn take_over(&self) -> Checked<Vec<TakenRun>> {
        Ok(self.store.take_over(TakeOver::new(GRAPH.into(), self.owner, 100)).await?)
    }

    pub(super) async fn claim(&self, name: &str, limit: usize) -> Checked<Claimed> {
        Ok(self.store.claim(Claim::new(self.owner, vec![(name.into(), limit)], limit)).await?)
    }

    pub(super) async fn claim_ids(&self, name: &str, limit: usize) -> Checked<Vec<StoredTaskId>> {
        Ok(self.claim(name, limit).await?.tasks.into_iter().map(|row| row.task.id).collect())
    }

    pub(super) async fn task(&self, id: StoredTaskId) -> Checked<TaskRow> {
        let mut filter = StoredTaskFilter::default();
        filter.ids = Some(vec![id]);
        let rows = self.store.tasks(filter).await?;
        rows.into_iter().next().ok_or_else(|| format!("the task {id} is not there").into())
    }
}

impl Live {
    /// Returns the next commit, which writes nothing yet.
    pub(super) fn commit(&self) -> Commit {
        Commit::new(self.id, self.epoch, self.number + 1, self.last)
    }

    /// Returns the next commit, with a checkpoint of this difference.
    pub(super) fn commit_of(&self, delta: &str) -> Commit {
        let mut commit = self.commit();
        commit.checkpoint = Some(checkpoint(Source::Loop, NewValues::Delta(bytes(delta))));
        commit.steps = commit.number;
        commit
    }

    /// Returns the run as its new owner has it.
    pub(super) fn taken(taken: &TakenRun) -> Self {
        let RunRow { run, epoch, commit, last_checkpoint, .. } = &taken.run;
        Self { id: run.id, thread: run.thread.clone(), epoch: *epoch, number: *commit, last: *last_checkpoint }
    }
}

pub(super) fn checkpoint(source: Source, values: NewValues) -> NewCheckpoint {
    NewCheckpoint::new(source, values, vec!["node".into()], json(r#"{"at":"node"}"#))
}

pub(super) fn task(name: &str) -> NewTask {
    NewTask::new(StoredTaskId::new(), name, bytes(r#"{"to":"ada"}"#), bytes("{}"))
}

/// Returns the id of a thread with a short name.
pub(super) fn thread_id(name: &str) -> ThreadId {
    name.parse().expect("the names in the checks are short")
}

pub(super) fn bytes(json: &str) -> Bytes {
    Bytes::copy_from_slice(json.as_bytes())
}

pub(super) fn json(json: &str) -> Stored {
    Stored::Json(bytes(json))
}

/// Returns a stored value as JSON; its text need not be the one that was written.
pub(super) fn value(stored: &Stored) -> Checked<Value> {
    let json = stored.json().ok_or("the store does not keep JSON as JSON")?;
    Ok(serde_json::from_slice(json).map_err(|error| format!("{error} in {stored:?}"))?)
}

/// Fails unless both are equal.
#[allow(clippy::needless_pass_by_value, reason = "the checks compare values that nobody else needs")]
pub(super) fn same<T: PartialEq + fmt::Debug>(what: &str, got: T, expected: T) -> Checked {
    if got == expected { Ok(()) } else { Err(format!("{what}: expected {expected:?}, got {got:?}").into()) }
}

/// Fails unless `is_so`.
pub(super) fn ensure(is_so: bool, what: impl fmt::Display) -> Checked {
    if is_so { Ok(()) } else { Err(what.to_string().into()) }
}

pub(super) fn unexpected<T>(what: &str, got: &impl fmt::Debug) -> Checked<T> {
    Err(format!("{what}: got {got:?}").into())
}

/// Fails unless the operation was refused for this reason.
pub(super) fn refused<T: fmt::Debug>(what: &str, result: Result<T, StoreError>, kind: &StoreErrorKind) -> Checked {
    match result {
        Err(error) if error.kind() == kind => Ok(()),
        other => Err(format!("{what}: expected {kind:?}, got {other:?}").into()),
    }
}

pub(super) fn fenced<T: fmt::Debug>(what: &str, result: Result<T, StoreError>) -> Checked {
    refused(what, result, &StoreErrorKind::Fenced)
}

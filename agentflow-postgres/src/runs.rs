//! Runs: how they are accepted, started, committed, released and cancelled.
//!
//! Every write to a run holds the lock on the row of its thread, so that each transaction sees one thread as a whole and
//! the locks of a transaction cannot wait for each other.

use agentflow::{
    RunId,
    store::{
        BeginRun, Begun, CancelKind, CancelRequested, CheckpointId, Commit, Committed, Deleted, NewRun, OnBusyThread,
        OwnerId, ProgressRecord, QuestionId, QuestionStatus, Rest, RunEnd, RunFilter, RunRow, RunStart, RunStarted,
        RunStatus, StoreError, ThreadId, Timestamp,
    },
};
use tokio_postgres::Row;

use crate::{
    checkpoints::{self, Parent},
    error, rows,
    rows::Columns,
    tasks,
    transaction::{Read, Session, Statement, Transaction},
    value::{Array, args, count, json, limit, one, to_json},
};

const NOW: &str = "SELECT agentflow_now() AS now";
pub(crate) const NOTIFY: &str = "SELECT agentflow_notify()";

/// The thread that a transaction has locked.
#[derive(Debug)]
pub(crate) struct LockedThread {
    pub(crate) id: ThreadId,
    pub(crate) graph: std::sync::Arc<str>,
    pub(crate) head: Option<CheckpointId>,
    pub(crate) newest: Option<CheckpointId>,
    pub(crate) rest: Rest,
}

impl LockedThread {
    pub(crate) const BY_ID: &str =
        "SELECT id, graph, head, newest, rest FROM agentflow_threads WHERE id = $1 FOR UPDATE";
    const BY_RUN: &str = "SELECT id, graph, head, newest, rest FROM agentflow_threads
        WHERE id = (SELECT thread FROM agentflow_runs WHERE id = $1) FOR UPDATE";

    pub(crate) fn read(operation: &'static str, rows: &[Row]) -> Result<Option<Self>, StoreError> {
        let Some(row) = rows.first() else { return Ok(None) };
        let columns = Columns::new(operation, row);
        Ok(Some(Self {
            id: columns.get("id")?,
            graph: columns.get("graph")?,
            head: columns.get("head")?,
            newest: columns.get("newest")?,
            rest: columns.get("rest")?,
        }))
    }

    /// Returns an id for a new checkpoint, greater than those of all others of the thread.
    pub(crate) fn next_id(&mut self) -> CheckpointId {
        let id = CheckpointId::after(self.newest);
        self.newest = Some(id);
        id
    }
}

/// An unfinished run of a thread, in the order in which they run.
#[derive(Debug)]
struct Unfinished {
    id: RunId,
    status: RunStatus,
    started: bool,
    is_due: bool,
    owner: OwnerId,
    /// Its owner is alive.
    is_alive: bool,
}

impl Unfinished {
    /// Returns whether an owner has the run: not if it was released.
    fn is_driven(&self) -> bool {
        self.is_alive && (self.status == RunStatus::Running || !self.started)
    }
}

const UNFINISHED: &str = "SELECT id, status, started, owner, agentflow_is_alive(owner) AS is_alive,
        (status = 'running' OR not_before IS NULL OR not_before <= agentflow_now()) AS is_due
    FROM agentflow_runs WHERE thread = $1 AND status IN ('queued', 'running')
    ORDER BY status = 'running' DESC, started DESC, sequence";

fn unfinished(operation: &'static str, rows: &[Row]) -> Result<Vec<Unfinished>, StoreError> {
    let read = |row| {
        let columns = Columns::new(operation, row);
        Ok(Unfinished {
            id: columns.get("id")?,
            status: columns.get("status")?,
            started: columns.get("started")?,
            is_due: columns.get("is_due")?,
            owner: columns.get("owner")?,
            is_alive: columns.get("is_alive")?,
        })
    };
    rows.iter().map(read).collect()
}

pub(crate) async fn begin(session: Session, request: BeginRun) -> Result<Begun, StoreError> {
    let operation = session.operation;
    let BeginRun { run, on_busy, start, .. } = request;
    let mut transaction = session.begin();
    transaction.write(
        "INSERT INTO agentflow_threads (id, graph, metadata, labels, created, updated)
            VALUES ($1, $2, '{}', '{}', agentflow_now(), agentflow_now()) ON CONFLICT DO NOTHING",
        args![&run.thread, &run.graph],
    );
    let [thread, known, before, now] = transaction
        .read([
            (LockedThread::BY_ID, args![&run.thread]),
            ("SELECT * FROM agentflow_runs WHERE id = $1", args![run.id]),
            (UNFINISHED, args![&run.thread]),
            (NOW, args![]),
        ])
        .await?;
    if let Some(row) = known.first() {
        transaction.roll_back().await?;
        let known = rows::run(operation, row)?;
        return if known.run.thread == run.thread {
            Ok(Begun::Known(Box::new(known)))
        } else {
            Err(error::invalid(operation, format!("the run {} is one of the thread {}", run.id, known.run.thread)))
        };
    }
    let mut thread = locked(operation, &thread)?;
    let before = unfinished(operation, &before)?;
    let now: Timestamp = one(operation, &now, "now")?;
    if thread.graph != run.graph {
        transaction.roll_back().await?;
        return Ok(Begun::OtherGraph(thread.graph));
    }
    if let Some(refused) = not_open(&mut transaction, &thread.id, &start).await? {
        transaction.roll_back().await?;
        return Ok(refused);
    }
    let is_due = run.not_before.is_none_or(|time| time <= now);
    let in_the_way = before.iter().find(|run| run.is_due);
    if let (Some(first), OnBusyThread::Reject) = (in_the_way, on_busy) {
        let busy = Begun::Busy { run: first.id, is_driven: first.is_driven() };
        transaction.roll_back().await?;
        return Ok(busy);
    }
    let cancel = match on_busy {
        OnBusyThread::Cancel => Some(CancelKind::Cancel),
        OnBusyThread::Rollback => Some(CancelKind::Rollback),
        _ => None,
    };
    if let Some(kind) = cancel {
        for run in before.iter().filter(|run| run.is_due) {
            request_cancel_of(&mut transaction, run.id, run.started, kind);
        }
    }
    // A queued run that was cancelled is in the way no more.
    let behind = in_the_way.filter(|run| cancel.is_none() || run.started).map(|run| run.id);
    insert(&mut transaction, &run, &start, now)?;
    if in_the_way.is_some() || !is_due {
        transaction.write(NOTIFY, args![]);
        transaction.commit().await?;
        return Ok(Begun::Queued { behind });
    }
    match begin_at(&mut transaction, &mut thread, run.id, &start, now).await? {
        Ok(checkpoints) => {
            transaction.write(STARTED, started_arguments(run.id, run.owner, 1, &thread, &checkpoints, &start, now));
            transaction.write(HEAD, head_arguments(&thread, &checkpoints, &start, now));
            transaction.commit().await?;
            Ok(Begun::Running(RunStarted::new(1, checkpoints)))
        }
        Err(refused) => {
            transaction.roll_back().await?;
            Ok(refused)
        }
    }
}

/// Returns the thread that was locked; it is there, because the transaction has made it.
fn locked(operation: &'static str, rows: &[Row]) -> Result<LockedThread, StoreError> {
    let gone = || StoreError::new(operation, agentflow::store::StoreErrorKind::Unavailable);
    LockedThread::read(operation, rows)?.ok_or_else(gone)
}

fn insert(transaction: &mut Transaction, run: &NewRun, start: &RunStart, now: Timestamp) -> Result<(), StoreError> {
    let operation = transaction.operation();
    let (input, config) = (json(operation, &run.input)?, json(operation, &run.config)?);
    let metadata = to_json(operation, &run.metadata)?;
    transaction.write(
        "INSERT INTO agentflow_runs
            (id, thread, graph, accepted_by, owner, input, config, metadata, not_before, base, status, created, updated)
            VALUES ($1, $2, $3, $4, $4, $5, $6, $7, $8, $9, 'queued', $10, $10)",
        args![run.id, &run.thread, &run.graph, run.owner, input, config, metadata, run.not_before, start.base, now],
    );
    transaction.write("UPDATE agentflow_threads SET updated = $2 WHERE id = $1", args![&run.thread, now]);
    Ok(())
}

const STARTED: &str = "UPDATE agentflow_runs SET status = 'running', started = true, owner = $2,
        epoch = $3, head_before = $4, rest_before = $5, base = $6, last_checkpoint = $7, consumed_at = $8, updated = $8
    WHERE id = $1";

fn started_arguments(
    run: RunId,
    owner: OwnerId,
    epoch: u64,
    thread: &LockedThread,
    checkpoints: &[CheckpointId],
    start: &RunStart,
    now: Timestamp,
) -> Vec<crate::value::Argument> {
    let last = checkpoints.last().copied().or(start.base);
    args![run, owner, epoch, thread.head, thread.rest, start.base, last, now]
}

const HEAD: &str = "UPDATE agentflow_threads SET head = $2, newest = $3, updated = $4 WHERE id = $1";

fn head_arguments(
    thread: &LockedThread,
    checkpoints: &[CheckpointId],
    start: &RunStart,
    now: Timestamp,
) -> Vec<crate::value::Argument> {
    let head = checkpoints.last().copied().or(start.base);
    args![&thread.id, head, thread.newest, now]
}

/// Writes what the start of a run writes but the rows of the run and of the thread. Returns the ids of the checkpoints, or
/// why the run cannot start.
async fn begin_at(
    transaction: &mut Transaction,
    thread: &mut LockedThread,
    run: RunId,
    start: &RunStart,
    now: Timestamp,
) -> Result<Result<Vec<CheckpointId>, Begun>, StoreError> {
    if thread.head != start.expected_head {
        return Ok(Err(Begun::HeadMoved(thread.head)));
    }
    let mut parent = Parent::NONE;
    if let Some(base) = start.base {
        match checkpoints::parent(transaction, &thread.id, base).await? {
            Some(found) => parent = found,
            None => return Ok(Err(Begun::NoSuchCheckpoint(base))),
        }
    }
    let mut ids = Vec::with_capacity(start.checkpoints.len());
    for new in &start.checkpoints {
        let id = thread.next_id();
        parent = checkpoints::insert(transaction, &thread.id, id, parent, Some(run), new, now)?;
        ids.push(id);
    }
    for answer in &start.answers {
        transaction.write(
            "UPDATE agentflow_questions SET status = 'answered', answered_by = $2, answer = $3 WHERE id = $1",
            args![answer.question, run, json(transaction.operation(), &answer.answer)?],
        );
    }
    if start.drops_questions || start.base != thread.head {
        drop_questions(transaction, &thread.id, Some(run));
    }
    Ok(Ok(ids))
}

/// Drops the open questions of a thread and deletes the progress of its step.
pub(crate) fn drop_questions(transaction: &mut Transaction, thread: &ThreadId, run: Option<RunId>) {
    transaction.write(
        "UPDATE agentflow_questions SET status = 'dropped', ended_by = $2 WHERE thread = $1 AND status = 'open'",
        args![thread, run],
    );
    transaction.write("DELETE FROM agentflow_progress WHERE thread = $1", args![thread]);
}

/// Returns the refusal for the first question that is not open.
async fn not_open(
    transaction: &mut Transaction,
    thread: &ThreadId,
    start: &RunStart,
) -> Result<Option<Begun>, StoreError> {
    let questions: Vec<QuestionId> = start.answers.iter().map(|answer| answer.question).collect();
    if questions.is_empty() {
        return Ok(None);
    }
    let operation = transaction.operation();
    let sql = "SELECT id, status FROM agentflow_questions WHERE thread = $1 AND id = ANY ($2)";
    let [rows] = transaction.read([(sql, args![thread, Array(questions.clone())])]).await?;
    let mut found = std::collections::HashMap::new();
    for row in &rows {
        let columns = Columns::new(operation, row);
        found.insert(columns.get::<QuestionId>("id")?, columns.get::<QuestionStatus>("status")?);
    }
    let status = |question| found.get(question).copied();
    let refused = questions.iter().find(|question| status(question) != Some(QuestionStatus::Open));
    Ok(refused.map(|question| Begun::NotOpen { question: *question, status: status(question) }))
}

pub(crate) async fn start(session: Session, run: RunId, owner: OwnerId, start: RunStart) -> Result<Begun, StoreError> {
    let operation = session.operation;
    let mut transaction = session.begin();
    let [thread] = transaction.read([(LockedThread::BY_RUN, args![run])]).await?;
    let Some(mut thread) = LockedThread::read(operation, &thread)? else {
        transaction.roll_back().await?;
        return Ok(Begun::Gone);
    };
    let sql = "SELECT * FROM agentflow_runs WHERE id = $1";
    let [row, before, now] =
        transaction.read([(sql, args![run]), (UNFINISHED, args![&thread.id]), (NOW, args![])]).await?;
    let Some(row) = row.first() else {
        transaction.roll_back().await?;
        return Ok(Begun::Gone);
    };
    let before = unfinished(operation, &before)?;
    let now: Timestamp = one(operation, &now, "now")?;
    let row = rows::run(operation, row)?;
    let Some(this) = before.iter().find(|other| other.id == run) else {
        transaction.roll_back().await?;
        return Ok(Begun::Gone);
    };
    if this.status == RunStatus::Running {
        transaction.roll_back().await?;
        return Ok(Begun::Known(Box::new(row)));
    }
    let is_of_another = this.owner != owner;
    if is_of_another && this.is_alive {
        transaction.roll_back().await?;
        return Err(StoreError::fenced(operation));
    }
    if this.started {
        transaction.roll_back().await?;
        return Err(error::invalid(operation, "the run has started, and has to be taken over"));
    }
    let first = before.iter().find(|other| other.is_due).map(|other| other.id);
    if first != Some(run) {
        transaction.roll_back().await?;
        return Ok(Begun::Queued { behind: first });
    }
    if let Some(refused) = not_open(&mut transaction, &thread.id, &start).await? {
        transaction.roll_back().await?;
        return Ok(refused);
    }
    let epoch = row.epoch + u64::from(is_of_another);
    match begin_at(&mut transaction, &mut thread, run, &start, now).await? {
        Ok(checkpoints) => {
            transaction.write(STARTED, started_arguments(run, owner, epoch, &thread, &checkpoints, &start, now));
            transaction.write(HEAD, head_arguments(&thread, &checkpoints, &start, now));
            transaction.commit().await?;
            Ok(Begun::Running(RunStarted::new(epoch, checkpoints)))
        }
        Err(refused) => {
            transaction.roll_back().await?;
            Ok(refused)
        }
    }
}

/// The columns of a run that a write by its owner needs, with its last checkpoint.
const LIVE: &str = "SELECT r.status, r.epoch, r.commit_number, r.last_checkpoint, r.cancel, r.head_before,
        r.rest_before, c.id, c.step, c.delta_bytes, agentflow_now() AS now
    FROM agentflow_runs r LEFT JOIN agentflow_checkpoints c ON c.thread = r.thread AND c.id = r.last_checkpoint
    WHERE r.id = $1";

pub(crate) async fn commit(session: Session, commit: Commit) -> Result<Committed, StoreError> {
    let operation = session.operation;
    let mut transaction = session.begin();
    let reads = [(LockedThread::BY_RUN, args![commit.run]), (LIVE, args![commit.run])];
    let [thread, row] = transaction.read(reads).await?;
    let (Some(mut thread), Some(row)) = (LockedThread::read(operation, &thread)?, row.first()) else {
        transaction.roll_back().await?;
        return Err(StoreError::fenced(operation));
    };
    let columns = Columns::new(operation, row);
    let last: Option<CheckpointId> = columns.get("last_checkpoint")?;
    let cancel: Option<CancelKind> = columns.get("cancel")?;
    let is_of_owner = columns.get::<u64>("epoch")? == commit.epoch;
    if is_of_owner && commit.number <= columns.get("commit_number")? {
        transaction.roll_back().await?;
        return Ok(Committed::new(last, cancel));
    }
    if !is_of_owner || columns.get::<RunStatus>("status")? != RunStatus::Running {
        transaction.roll_back().await?;
        return Err(StoreError::fenced(operation));
    }
    if commit.parent != last {
        transaction.roll_back().await?;
        return Err(error::invalid(operation, "the commit does not follow the run's last checkpoint"));
    }
    if commit.end.as_ref().is_some_and(|end| !end.status.has_ended()) {
        transaction.roll_back().await?;
        return Err(error::invalid(operation, "the run does not end in a state that has ended"));
    }
    let now: Timestamp = columns.get("now")?;
    tasks::insert_all(&mut transaction, &commit.tasks, now).await?;
    if let Some(end) = commit.end.as_ref().filter(|end| end.rolls_back || end.deletes_thread) {
        if end.rolls_back {
            let (head, rest) = (columns.get("head_before")?, columns.get("rest_before")?);
            roll_back_run(&mut transaction, &thread, commit.run, head, rest, now);
        }
        if end.deletes_thread {
            transaction.write("DELETE FROM agentflow_threads WHERE id = $1", args![&thread.id]);
        }
        transaction.write(NOTIFY, args![]);
        transaction.commit().await?;
        return Ok(Committed::new(None, cancel));
    }

    let mut made = None;
    if let Some(new) = &commit.checkpoint {
        let parent = if last.is_some() { Parent::read(columns)? } else { Parent::NONE };
        let id = thread.next_id();
        checkpoints::insert(&mut transaction, &thread.id, id, parent, Some(commit.run), new, now)?;
        made = Some(id);
    }
    let head = made.or(thread.head);
    write_questions(&mut transaction, &thread, &commit, head, now)?;
    write_progress(&mut transaction, &thread.id, commit.run, commit.clears.as_deref(), &commit.progress)?;
    let (status, failure, rest) = match &commit.end {
        Some(RunEnd { status, failure, rest, .. }) => {
            let failure = failure.as_ref().map(|failure| to_json(operation, failure)).transpose()?;
            (*status, failure, *rest)
        }
        None => (RunStatus::Running, None, thread.rest),
    };
    transaction.write(
        "UPDATE agentflow_runs SET commit_number = $2, last_checkpoint = $3, steps = $4, consumed = $5, consumed_at = $6,
            updated = $6, crashes = 0, status = $7, failure = $8 WHERE id = $1",
        args![commit.run, commit.number, made.or(last), commit.steps, commit.consumed, now, status, failure],
    );
    transaction.write(
        "UPDATE agentflow_threads SET head = $2, newest = $3, rest = $4, updated = $5 WHERE id = $1",
        args![&thread.id, head, thread.newest, rest, now],
    );
    // A notification makes commits wait for each other, so the plain step goes without: its readers poll.
    if commit.end.is_some() || !commit.tasks.is_empty() {
        transaction.write(NOTIFY, args![]);
    }
    transaction.commit().await?;
    Ok(Committed::new(made, cancel))
}

fn write_questions(
    transaction: &mut Transaction,
    thread: &LockedThread,
    commit: &Commit,
    checkpoint: Option<CheckpointId>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let operation = transaction.operation();
    if !commit.closes.is_empty() {
        transaction.write(
            "UPDATE agentflow_questions SET status = 'closed', ended_by = $3
                WHERE thread = $1 AND id = ANY ($2) AND status = 'answered'",
            args![&thread.id, Array(commit.closes.clone()), commit.run],
        );
    }
    if !commit.drops.is_empty() {
        transaction.write(
            "UPDATE agentflow_questions SET status = 'dropped', ended_by = $3
                WHERE thread = $1 AND id = ANY ($2) AND status = 'open'",
            args![&thread.id, Array(commit.drops.clone()), commit.run],
        );
    }
    if !commit.reopens.is_empty() {
        transaction.write(
            "UPDATE agentflow_questions SET status = 'open', answered_by = NULL, answer = NULL, ended_by = NULL
                WHERE thread = $1 AND id = ANY ($2) AND status = 'answered'",
            args![&thread.id, Array(commit.reopens.clone())],
        );
    }
    for question in &commit.questions {
        let text = json(operation, &question.question)?;
        transaction.write(
            "INSERT INTO agentflow_questions (id, thread, node, step, question, asked_by, checkpoint, created)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
            args![question.id, &thread.id, &question.node, &question.step, text, commit.run, checkpoint, now],
        );
    }
    Ok(())
}

/// Deletes the progress of the step `clears`, and then writes `progress`.
fn write_progress(
    transaction: &mut Transaction,
    thread: &ThreadId,
    run: RunId,
    clears: Option<&str>,
    progress: &[ProgressRecord],
) -> Result<(), StoreError> {
    let operation = transaction.operation();
    if let Some(step) = clears {
        transaction.write("DELETE FROM agentflow_progress WHERE thread = $1 AND step = $2", args![thread, step]);
    }
    if progress.is_empty() {
        return Ok(());
    }
    // Of two records of one path the later counts. A statement may not write a row twice.
    let mut newest = std::collections::BTreeMap::new();
    for record in progress {
        newest.insert((&*record.step, &*record.path), json(operation, &record.record)?);
    }
    let steps: Array<&str> = newest.keys().map(|(step, _)| *step).collect();
    let paths: Array<&str> = newest.keys().map(|(_, path)| *path).collect();
    let records: Array<_> = newest.into_values().collect();
    transaction.write(
        "INSERT INTO agentflow_progress (thread, run, step, path, record)
            SELECT $1, $2, p.step, p.path, p.record
            FROM unnest($3::bytea[], $4::bytea[], $5::bytea[]) AS p (step, path, record)
            ON CONFLICT (thread, step, path) DO UPDATE SET run = excluded.run, record = excluded.record",
        args![thread, run, steps, paths, records],
    );
    Ok(())
}

/// Deletes a run and everything that it made, and moves the head back.
fn roll_back_run(
    transaction: &mut Transaction,
    thread: &LockedThread,
    run: RunId,
    head: Option<CheckpointId>,
    rest: Rest,
    now: Timestamp,
) {
    // A checkpoint that one of another run, or an edit, follows stays.
    transaction.write(
        "WITH RECURSIVE kept (id, parent) AS (
                SELECT id, parent FROM agentflow_checkpoints WHERE thread = $1 AND run IS DISTINCT FROM $2
                UNION SELECT c.id, c.parent FROM kept JOIN agentflow_checkpoints c ON c.thread = $1 AND c.id = kept.parent)
            DELETE FROM agentflow_checkpoints WHERE thread = $1 AND run = $2 AND id NOT IN (SELECT id FROM kept)",
        args![&thread.id, run],
    );
    transaction.write("DELETE FROM agentflow_questions WHERE thread = $1 AND asked_by = $2", args![&thread.id, run]);
    // A question that the run closed, and that an earlier run had answered, is answered again.
    transaction.write(
        "UPDATE agentflow_questions SET ended_by = NULL,
                status = CASE WHEN answered_by = $2 OR answer IS NULL THEN 'open' ELSE 'answered' END,
                answer = CASE WHEN answered_by = $2 THEN NULL ELSE answer END,
                answered_by = CASE WHEN answered_by = $2 THEN NULL ELSE answered_by END
            WHERE thread = $1 AND (answered_by = $2 OR ended_by = $2)",
        args![&thread.id, run],
    );
    transaction.write("DELETE FROM agentflow_progress WHERE thread = $1 AND run = $2", args![&thread.id, run]);
    transaction.write(
        "DELETE FROM agentflow_tasks WHERE run = $1 AND status IN ('pending', 'running') AND epoch = 0",
        args![run],
    );
    transaction.write(tasks::CANCEL_OF_RUN, args![run]);
    transaction.write("DELETE FROM agentflow_runs WHERE id = $1", args![run]);
    transaction.write(
        "UPDATE agentflow_threads SET head = $2, rest = $3, updated = $4 WHERE id = $1",
        args![&thread.id, head, rest, now],
    );
}

/// Locks the thread of a live run. Returns the time, or `None` if the run is not live; the transaction goes on then too.
async fn live(
    transaction: &mut Transaction,
    run: RunId,
    epoch: u64,
) -> Result<Option<(LockedThread, Timestamp)>, StoreError> {
    let operation = transaction.operation();
    let [thread, row] = transaction.read([(LockedThread::BY_RUN, args![run]), (LIVE, args![run])]).await?;
    let (Some(thread), Some(row)) = (LockedThread::read(operation, &thread)?, row.first()) else { return Ok(None) };
    let columns = Columns::new(operation, row);
    let is_live = columns.get::<u64>("epoch")? == epoch && columns.get::<RunStatus>("status")? == RunStatus::Running;
    Ok(if is_live { Some((thread, columns.get("now")?)) } else { None })
}

pub(crate) async fn record(
    session: Session,
    run: RunId,
    epoch: u64,
    progress: Vec<ProgressRecord>,
) -> Result<(), StoreError> {
    let operation = session.operation;
    let mut transaction = session.begin();
    let Some((thread, _)) = live(&mut transaction, run, epoch).await? else {
        transaction.roll_back().await?;
        return Err(StoreError::fenced(operation));
    };
    write_progress(&mut transaction, &thread.id, run, None, &progress)?;
    transaction.commit().await
}

pub(crate) async fn release(
    session: Session,
    run: RunId,
    epoch: u64,
    consumed: std::time::Duration,
) -> Result<(), StoreError> {
    let operation = session.operation;
    let mut transaction = session.begin();
    let Some((_, now)) = live(&mut transaction, run, epoch).await? else {
        transaction.roll_back().await?;
        return Err(StoreError::fenced(operation));
    };
    transaction.write(
        "UPDATE agentflow_runs SET status = 'queued', consumed = $2, consumed_at = $3, updated = $3 WHERE id = $1",
        args![run, consumed, now],
    );
    transaction.write(NOTIFY, args![]);
    transaction.commit().await
}

pub(crate) async fn request_cancel(
    session: Session,
    run: RunId,
    kind: CancelKind,
) -> Result<CancelRequested, StoreError> {
    let operation = session.operation;
    let mut transaction = session.begin();
    let sql = "SELECT status, started, owner, status = 'running' AND agentflow_is_alive(owner) AS is_alive
        FROM agentflow_runs WHERE id = $1";
    let [_, row] = transaction.read([(LockedThread::BY_RUN, args![run]), (sql, args![run])]).await?;
    let Some(row) = row.first() else {
        transaction.roll_back().await?;
        return Ok(CancelRequested::NotFound);
    };
    let columns = Columns::new(operation, row);
    let status: RunStatus = columns.get("status")?;
    if status.has_ended() {
        transaction.roll_back().await?;
        return Ok(CancelRequested::AlreadyEnded(status));
    }
    let is_marked = request_cancel_of(&mut transaction, run, columns.get("started")?, kind);
    transaction.write(NOTIFY, args![]);
    transaction.commit().await?;
    Ok(if is_marked {
        CancelRequested::Marked { owner: columns.get("owner")?, is_alive: columns.get("is_alive")? }
    } else {
        CancelRequested::Cancelled
    })
}

/// Ends an unfinished run that has no position, or marks it. Returns whether it was marked.
fn request_cancel_of(transaction: &mut Transaction, run: RunId, has_started: bool, kind: CancelKind) -> bool {
    let sql = match kind {
        // A rollback is not taken back by a plain cancel.
        _ if has_started => {
            "UPDATE agentflow_runs SET cancel = CASE WHEN cancel = 'rollback' THEN cancel ELSE $2 END,
                updated = agentflow_now() WHERE id = $1"
        }
        CancelKind::Rollback => "DELETE FROM agentflow_runs WHERE id = $1 AND $2 = 'rollback'",
        _ => {
            "UPDATE agentflow_runs SET status = 'cancelled', updated = agentflow_now() WHERE id = $1 AND $2 <> 'rollback'"
        }
    };
    transaction.write(sql, args![run, kind]);
    has_started
}

pub(crate) async fn get(mut session: Session, run: RunId) -> Result<Option<RunRow>, StoreError> {
    let [row] = session.read([("SELECT * FROM agentflow_runs WHERE id = $1", args![run])]).await?;
    row.first().map(|row| rows::run(session.operation, row)).transpose()
}

pub(crate) async fn list(mut session: Session, filter: RunFilter) -> Result<Vec<RunRow>, StoreError> {
    let sql =
        "SELECT * FROM agentflow_runs WHERE ($1::bytea IS NULL OR thread = $1) AND ($2::bytea IS NULL OR graph = $2)
            AND ($3::text IS NULL OR status = $3) AND ($4::uuid IS NULL OR owner = $4)
        ORDER BY sequence DESC OFFSET $5 LIMIT $6";
    let arguments = args![
        filter.thread.as_ref(),
        filter.graph.as_ref(),
        filter.status,
        filter.owner,
        count(filter.offset),
        limit(filter.limit),
    ];
    let [found] = session.read([(sql, arguments)]).await?;
    found.iter().map(|row| rows::run(session.operation, row)).collect()
}

pub(crate) async fn delete(session: Session, run: RunId) -> Result<Deleted, StoreError> {
    let operation = session.operation;
    let mut transaction = session.begin();
    let statements: [Statement<'_>; 2] =
        [(LockedThread::BY_RUN, args![run]), ("SELECT status, started FROM agentflow_runs WHERE id = $1", args![run])];
    let [_, row] = transaction.read(statements).await?;
    if row.is_empty() {
        transaction.roll_back().await?;
        return Ok(Deleted::NotFound);
    }
    if !one::<RunStatus>(operation, &row, "status")?.has_ended() && one(operation, &row, "started")? {
        transaction.roll_back().await?;
        return Ok(Deleted::Busy(run));
    }
    transaction.write("DELETE FROM agentflow_runs WHERE id = $1", args![run]);
    transaction.commit().await?;
    Ok(Deleted::Yes)
}

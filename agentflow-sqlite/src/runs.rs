//! Runs: acceptance, start, commits and end.

use std::{sync::Arc, time::Duration};

use agentflow::{
    RunId,
    store::{
        BeginRun, Begun, CancelKind, CancelRequested, CheckpointId, Commit, Committed, Deleted, NewRun, OnBusyThread,
        OwnerId, ProgressRecord, QuestionStatus, Rest, RunEnd, RunFilter, RunRow, RunStart, RunStarted, RunStatus,
        ThreadId,
    },
};
use rusqlite::{Row, params, params_from_iter, types::Value as SqlValue};

use crate::{
    checkpoints,
    failure::Failure,
    tasks, threads,
    transaction::Transaction,
    value::{Sql, count, get, get_optional, integer, json, optional, stored},
};

// ---- Rows.

const COLUMNS: &str =
    "SELECT r.sequence, r.id, t.id AS thread_id, r.graph, r.accepted_by, r.owner, r.status, r.epoch, r.crashes,
    r.cancel, r.not_before, r.base, r.head_before, r.rest_before, r.last_checkpoint, r.last_commit, r.steps, r.consumed,
    r.failure, r.created_at, r.updated_at, i.input, i.config, i.metadata
    FROM runs AS r JOIN threads AS t ON t.key = r.thread JOIN run_inputs AS i ON i.run = r.sequence";

fn read(row: &Row<'_>) -> Result<RunRow, Failure> {
    let thread = row.get::<_, String>("thread_id")?;
    let thread: ThreadId = thread.parse().map_err(|_| Failure::corrupt("a thread has no valid id"))?;
    let graph: Arc<str> = row.get("graph")?;
    let (input, config) = (stored(row, "input")?, stored(row, "config")?);
    let mut new = NewRun::new(get(row, "id")?, thread, graph, get(row, "accepted_by")?, input, config);
    new.metadata = serde_json::from_str(&row.get::<_, String>("metadata")?)?;
    new.not_before = get_optional(row, "not_before")?;

    let mut run = RunRow::new(new, count(row, "sequence")?, get(row, "created_at")?);
    run.status = get(row, "status")?;
    run.owner = get(row, "owner")?;
    run.epoch = count(row, "epoch")?;
    run.crashes = row.get("crashes")?;
    run.cancel = get_optional(row, "cancel")?;
    run.base = get_optional(row, "base")?;
    run.head_before = get_optional(row, "head_before")?;
    run.rest_before = get(row, "rest_before")?;
    run.last_checkpoint = get_optional(row, "last_checkpoint")?;
    run.commit = count(row, "last_commit")?;
    run.steps = count(row, "steps")?;
    run.consumed = get(row, "consumed")?;
    let failure: Option<String> = row.get("failure")?;
    run.failure = failure.map(|json| serde_json::from_str(&json)).transpose()?;
    run.updated_at = get(row, "updated_at")?;
    Ok(run)
}

pub(crate) fn by_id(tx: &Transaction<'_>, run: RunId) -> Result<Option<RunRow>, Failure> {
    tx.one(&format!("{COLUMNS} WHERE r.id = ?1"), [Sql(run)], read)
}

pub(crate) fn list(tx: &Transaction<'_>, filter: &RunFilter) -> Result<Vec<RunRow>, Failure> {
    let mut values: Vec<SqlValue> = Vec::new();
    let mut conditions = vec!["1".to_owned()];
    let mut add = |condition: &str, value: SqlValue| {
        values.push(value);
        conditions.push(format!("{condition} = ?{}", values.len()));
    };
    if let Some(thread) = &filter.thread {
        add("t.id", thread.as_str().to_owned().into());
    }
    if let Some(graph) = &filter.graph {
        add("r.graph", graph.to_string().into());
    }
    if let Some(status) = filter.status {
        add("r.status", owned(&Sql(status))?);
    }
    if let Some(owner) = filter.owner {
        add("r.owner", owned(&Sql(owner))?);
    }
    let (conditions, limit) = (conditions.join(" AND "), checkpoints::limit(filter.limit));
    let sql = format!("{COLUMNS} WHERE {conditions} ORDER BY r.sequence DESC LIMIT {limit} OFFSET {}", filter.offset);
    tx.all(&sql, params_from_iter(values), read)
}

/// Returns a value for a list of parameters that is known only at run time.
pub(crate) fn owned(value: &impl rusqlite::ToSql) -> Result<SqlValue, Failure> {
    use rusqlite::types::ToSqlOutput;

    match value.to_sql()? {
        ToSqlOutput::Owned(value) => Ok(value),
        ToSqlOutput::Borrowed(value) => SqlValue::try_from(value).map_err(|error| Failure::corrupt(error.to_string())),
        _ => Err(Failure::unsupported("an unknown kind of value")),
    }
}

/// The columns of a run that operations need.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) sequence: i64,
    pub(crate) id: RunId,
    pub(crate) thread: i64,
    pub(crate) owner: OwnerId,
    pub(crate) status: RunStatus,
    pub(crate) is_released: bool,
    pub(crate) epoch: u64,
    pub(crate) crashes: u32,
    pub(crate) cancel: Option<CancelKind>,
    pub(crate) last_checkpoint: Option<CheckpointId>,
    pub(crate) last_commit: u64,
}

/// A query for the columns of [`Run`]. They are read by their places, because each step reads them.
macro_rules! select_runs {
    ($conditions:literal) => {
        concat!(
            "SELECT sequence, id, thread, owner, status, is_released, epoch, crashes, cancel, last_checkpoint, last_commit ",
            "FROM runs WHERE ",
            $conditions
        )
    };
}
pub(crate) use select_runs;

pub(crate) fn read_run(row: &Row<'_>) -> Result<Run, Failure> {
    Ok(Run {
        sequence: row.get(0)?,
        id: row.get::<_, Sql<_>>(1)?.0,
        thread: row.get(2)?,
        owner: row.get::<_, Sql<_>>(3)?.0,
        status: row.get::<_, Sql<_>>(4)?.0,
        is_released: row.get(5)?,
        epoch: row.get::<_, i64>(6)?.cast_unsigned(),
        crashes: row.get(7)?,
        cancel: row.get::<_, Option<Sql<_>>>(8)?.map(|cancel| cancel.0),
        last_checkpoint: row.get::<_, Option<Sql<_>>>(9)?.map(|id| id.0),
        last_commit: row.get::<_, i64>(10)?.cast_unsigned(),
    })
}

impl Run {
    /// Returns whether the run has a position.
    pub(crate) fn has_started(&self) -> bool {
        self.status == RunStatus::Running || self.is_released
    }

    /// Returns whether an owner drives the run, or will start it.
    fn is_driven(&self, tx: &Transaction<'_>) -> Result<bool, Failure> {
        Ok(!self.is_released && tx.is_alive(self.owner)?)
    }
}

pub(crate) fn find(tx: &Transaction<'_>, run: RunId) -> Result<Option<Run>, Failure> {
    tx.one(select_runs!("id = ?1"), [Sql(run)], read_run)
}

/// Returns the running run of a thread.
pub(crate) fn running(tx: &Transaction<'_>, thread: i64) -> Result<Option<Run>, Failure> {
    let sql = select_runs!("thread = ?1 AND status IN ('queued', 'running') AND status = 'running'");
    tx.one(sql, [thread], read_run)
}

/// Returns whether a thread has an unfinished run that has begun.
pub(crate) fn has_begun(tx: &Transaction<'_>, thread: i64) -> Result<bool, Failure> {
    tx.exists(
        "SELECT 1 FROM runs
         WHERE thread = ?1 AND status IN ('queued', 'running') AND (status = 'running' OR is_released = 1)",
        [thread],
    )
}

/// Returns the unfinished runs of a thread that are due, the first in the order first: the running one, a released one, and
/// then as they were accepted.
fn due(tx: &Transaction<'_>, thread: i64, limit: i64) -> Result<Vec<Run>, Failure> {
    tx.all(
        select_runs!(
            "thread = ?1 AND status IN ('queued', 'running')
               AND (status = 'running' OR not_before IS NULL OR not_before <= ?2)
             ORDER BY status = 'running' DESC, is_released DESC, sequence LIMIT ?3"
        ),
        params![thread, Sql(tx.now), limit],
        read_run,
    )
}

/// Returns the run that keeps a thread busy.
pub(crate) fn first_due(tx: &Transaction<'_>, thread: i64) -> Result<Option<Run>, Failure> {
    Ok(due(tx, thread, 1)?.pop())
}

// ---- Acceptance and start.

pub(crate) fn begin(tx: &Transaction<'_>, request: &BeginRun) -> Result<Begun, Failure> {
    let BeginRun { run, on_busy, start, .. } = request;
    if let Some(known) = by_id(tx, run.id)? {
        if known.run.thread == run.thread {
            return Ok(Begun::Known(Box::new(known)));
        }
        return Err(Failure::invalid(format!("the run {} is on another thread", run.id)));
    }
    let thread = threads::find(tx, &run.thread)?;
    if let Some(thread) = thread.as_ref().filter(|thread| thread.graph != run.graph) {
        return Ok(Begun::OtherGraph(thread.graph.clone()));
    }
    let key = thread.as_ref().map(|thread| thread.key);
    if let Some((question, status)) = threads::not_open(tx, key, &start.answers)? {
        return Ok(Begun::NotOpen { question, status });
    }
    let before = key.map_or(Ok(None), |key| first_due(tx, key))?;
    if let (Some(key), Some(before)) = (key, before) {
        let cancel = match on_busy {
            OnBusyThread::Reject => {
                return Ok(Begun::Busy { run: before.id, is_driven: before.is_driven(tx)? });
            }
            OnBusyThread::Queue => None,
            OnBusyThread::Cancel => Some(CancelKind::Cancel),
            OnBusyThread::Rollback => Some(CancelKind::Rollback),
            _ => return Err(Failure::unsupported("an unknown policy for busy threads")),
        };
        if let Some(kind) = cancel {
            for other in due(tx, key, -1)? {
                cancel_run(tx, &other, kind)?;
            }
        }
        let behind = first_due(tx, key)?.map(|run| run.id);
        accept(tx, key, run, start)?;
        return Ok(Begun::Queued { behind });
    }
    let is_later = run.not_before.is_some_and(|time| time > tx.now);
    if !is_later && let Some(refusal) = refuse(tx, thread.as_ref(), start)? {
        return Ok(refusal);
    }
    let thread = match thread {
        Some(thread) => thread,
        None => threads::Thread {
            key: threads::insert(tx, &run.thread, &run.graph, &serde_json::Map::new())?,
            graph: run.graph.clone(),
            head: None,
            rest: Rest::Idle,
        },
    };
    let sequence = accept(tx, thread.key, run, start)?;
    if is_later {
        return Ok(Begun::Queued { behind: None });
    }
    let checkpoints = start_accepted(tx, &thread, sequence, run.id, start)?;
    Ok(Begun::Running(RunStarted::new(1, checkpoints)))
}

/// Returns the reason why a run cannot start now.
fn refuse(tx: &Transaction<'_>, thread: Option<&threads::Thread>, start: &RunStart) -> Result<Option<Begun>, Failure> {
    let head = thread.and_then(|thread| thread.head);
    if head != start.expected_head {
        return Ok(Some(Begun::HeadMoved(head)));
    }
    if let Some(base) = start.base
        && !thread.map_or(Ok(false), |thread| checkpoints::exists(tx, thread.key, base))?
    {
        return Ok(Some(Begun::NoSuchCheckpoint(base)));
    }
    Ok(None)
}

/// Writes the row of a queued run. Returns its key.
fn accept(tx: &Transaction<'_>, thread: i64, run: &NewRun, start: &RunStart) -> Result<i64, Failure> {
    let sequence = tx.insert(
        "INSERT INTO runs (id, thread, graph, accepted_by, owner, status, is_released, epoch, crashes, not_before, base,
             rest_before, last_commit, steps, consumed, charged_at, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?4, 'queued', 0, 1, 0, ?5, ?6, 'idle', 0, 0, 0, ?7, ?7, ?7)",
        params![
            Sql(run.id),
            thread,
            run.graph,
            Sql(run.owner),
            optional(run.not_before),
            optional(start.base),
            Sql(tx.now)
        ],
    )?;
    tx.execute(
        "INSERT INTO run_inputs (run, input, config, metadata) VALUES (?1, ?2, ?3, ?4)",
        params![sequence, json(&run.input)?, json(&run.config)?, serde_json::to_string(&run.metadata)?],
    )?;
    tx.execute("UPDATE threads SET updated_at = ?2 WHERE key = ?1", params![thread, Sql(tx.now)])?;
    tx.notify();
    Ok(sequence)
}

pub(crate) fn start(tx: &Transaction<'_>, id: RunId, owner: OwnerId, start: &RunStart) -> Result<Begun, Failure> {
    let Some(row) = by_id(tx, id)? else { return Ok(Begun::Gone) };
    match row.status {
        RunStatus::Queued => {}
        RunStatus::Running => return Ok(Begun::Known(Box::new(row))),
        _ => return Ok(Begun::Gone),
    }
    let run = find(tx, id)?.ok_or_else(Failure::fenced)?;
    let is_of_another = run.owner != owner;
    if is_of_another && tx.is_alive(run.owner)? {
        return Err(Failure::fenced());
    }
    if run.is_released {
        return Err(Failure::invalid("the run has started, and has to be taken over"));
    }
    match first_due(tx, run.thread)? {
        Some(first) if first.id == id => {}
        first => return Ok(Begun::Queued { behind: first.map(|first| first.id) }),
    }
    let thread = threads::find(tx, &row.run.thread)?.ok_or_else(|| Failure::corrupt("a run has no thread"))?;
    if let Some((question, status)) = threads::not_open(tx, Some(thread.key), &start.answers)? {
        return Ok(Begun::NotOpen { question, status });
    }
    if let Some(refusal) = refuse(tx, Some(&thread), start)? {
        return Ok(refusal);
    }
    let epoch = run.epoch + u64::from(is_of_another);
    if is_of_another {
        tx.execute(
            "UPDATE runs SET owner = ?2, epoch = ?3 WHERE sequence = ?1",
            params![run.sequence, Sql(owner), integer(epoch)],
        )?;
    }
    let checkpoints = start_accepted(tx, &thread, run.sequence, id, start)?;
    tx.notify();
    Ok(Begun::Running(RunStarted::new(epoch, checkpoints)))
}

/// Makes a queued run a running one. All that could refuse it was checked.
fn start_accepted(
    tx: &Transaction<'_>,
    thread: &threads::Thread,
    sequence: i64,
    run: RunId,
    start: &RunStart,
) -> Result<Vec<CheckpointId>, Failure> {
    let mut last = start.base;
    let mut made = Vec::with_capacity(start.checkpoints.len());
    for checkpoint in &start.checkpoints {
        let id = checkpoints::insert(tx, thread.key, Some(run), last, checkpoint)?;
        made.push(id);
        last = Some(id);
    }
    for answer in &start.answers {
        threads::answer(tx, run, answer)?;
    }
    if start.drops_questions || start.base != thread.head {
        threads::drop_questions(tx, thread.key, Some(run))?;
    }
    tx.execute(
        "UPDATE runs SET status = 'running', base = ?2, head_before = ?3, rest_before = ?4, last_checkpoint = ?5,
             charged_at = ?6, updated_at = ?6
         WHERE sequence = ?1",
        params![sequence, optional(start.base), optional(thread.head), Sql(thread.rest), optional(last), Sql(tx.now)],
    )?;
    threads::set_head(tx, thread.key, last)?;
    Ok(made)
}

// ---- Steps.

/// Returns a run that is running in this epoch.
fn live(tx: &Transaction<'_>, run: RunId, epoch: u64) -> Result<Run, Failure> {
    let live = find(tx, run)?.filter(|run| run.epoch == epoch && run.status == RunStatus::Running);
    live.ok_or_else(Failure::fenced)
}

pub(crate) fn commit(tx: &Transaction<'_>, commit: &Commit) -> Result<Committed, Failure> {
    // The epoch comes first: the commit of a former owner may have the number of one of its successor.
    let run = find(tx, commit.run)?.filter(|run| run.epoch == commit.epoch).ok_or_else(Failure::fenced)?;
    if commit.number <= run.last_commit {
        return Ok(Committed::new(run.last_checkpoint, run.cancel));
    }
    if run.status != RunStatus::Running {
        return Err(Failure::fenced());
    }
    if commit.parent != run.last_checkpoint {
        return Err(Failure::invalid("the commit does not follow the run's last checkpoint"));
    }
    if commit.end.as_ref().is_some_and(|end| !end.status.has_ended()) {
        return Err(Failure::invalid("the run does not end in a state that has ended"));
    }
    let thread = run.thread;
    let mut last = run.last_checkpoint;
    let mut made = None;
    if let Some(checkpoint) = &commit.checkpoint {
        made = Some(checkpoints::insert(tx, thread, Some(run.id), last, checkpoint)?);
        last = made;
        threads::set_head(tx, thread, made)?;
    }
    threads::end_questions(tx, thread, run.id, &commit.closes, QuestionStatus::Answered, QuestionStatus::Closed)?;
    threads::end_questions(tx, thread, run.id, &commit.drops, QuestionStatus::Open, QuestionStatus::Dropped)?;
    threads::reopen(tx, thread, &commit.reopens)?;
    for question in &commit.questions {
        threads::ask(tx, thread, run.id, last, question)?;
    }
    if let Some(step) = &commit.clears {
        threads::clear_progress(tx, thread, step)?;
    }
    threads::record(tx, thread, run.id, &commit.progress)?;
    tasks::enqueue(tx, &commit.tasks)?;

    tx.execute(
        "UPDATE runs SET last_checkpoint = ?2, last_commit = ?3, steps = ?4, consumed = ?5, charged_at = ?6,
             updated_at = ?6
         WHERE sequence = ?1",
        params![
            run.sequence,
            optional(last),
            integer(commit.number),
            integer(commit.steps),
            Sql(commit.consumed),
            Sql(tx.now)
        ],
    )?;
    if run.crashes > 0 {
        // A statement of its own, because it changes an index.
        tx.execute("UPDATE runs SET crashes = 0 WHERE sequence = ?1", [run.sequence])?;
    }
    if let Some(end) = &commit.end {
        end_run(tx, &run, end)?;
    }
    Ok(Committed::new(made, run.cancel))
}

fn end_run(tx: &Transaction<'_>, run: &Run, end: &RunEnd) -> Result<(), Failure> {
    tx.notify();
    if end.deletes_thread && !end.rolls_back {
        return threads::delete_key(tx, run.thread);
    }
    if end.rolls_back {
        roll_back(tx, run)?;
        return if end.deletes_thread { threads::delete_key(tx, run.thread) } else { Ok(()) };
    }
    let failure = end.failure.as_ref().map(serde_json::to_string).transpose()?;
    tx.execute(
        "UPDATE runs SET status = ?2, failure = ?3 WHERE sequence = ?1",
        params![run.sequence, Sql(end.status), failure],
    )?;
    threads::set_rest(tx, run.thread, end.rest)
}

/// Deletes a run and all that it made. Head, state and questions of its thread are as they were before it.
fn roll_back(tx: &Transaction<'_>, run: &Run) -> Result<(), Failure> {
    tx.execute(
        "UPDATE threads SET (head, rest) = (SELECT head_before, rest_before FROM runs WHERE sequence = ?2),
             updated_at = ?3
         WHERE key = ?1",
        params![run.thread, run.sequence, Sql(tx.now)],
    )?;
    threads::roll_questions_back(tx, run.thread, run.id)?;
    checkpoints::delete_of_run(tx, run.thread, run.id)?;
    tasks::roll_back(tx, run.id)?;
    delete_row(tx, run.sequence)
}

fn delete_row(tx: &Transaction<'_>, sequence: i64) -> Result<(), Failure> {
    tx.execute("DELETE FROM run_inputs WHERE run = ?1", [sequence])?;
    tx.execute("DELETE FROM runs WHERE sequence = ?1", [sequence])?;
    Ok(())
}

pub(crate) fn record(tx: &Transaction<'_>, run: RunId, epoch: u64, progress: &[ProgressRecord]) -> Result<(), Failure> {
    let run = live(tx, run, epoch)?;
    threads::record(tx, run.thread, run.id, progress)
}

pub(crate) fn release(tx: &Transaction<'_>, run: RunId, epoch: u64, consumed: Duration) -> Result<(), Failure> {
    let run = live(tx, run, epoch)?;
    tx.execute(
        "UPDATE runs SET status = 'queued', is_released = 1, consumed = ?2, charged_at = ?3, updated_at = ?3
         WHERE sequence = ?1",
        params![run.sequence, Sql(consumed), Sql(tx.now)],
    )?;
    tx.notify();
    Ok(())
}

// ---- Cancels and deletion.

pub(crate) fn request_cancel(tx: &Transaction<'_>, run: RunId, kind: CancelKind) -> Result<CancelRequested, Failure> {
    match find(tx, run)? {
        None => Ok(CancelRequested::NotFound),
        Some(run) if run.status.has_ended() => Ok(CancelRequested::AlreadyEnded(run.status)),
        Some(run) => cancel_run(tx, &run, kind),
    }
}

/// Cancels an unfinished run, or requests it of its owner.
fn cancel_run(tx: &Transaction<'_>, run: &Run, kind: CancelKind) -> Result<CancelRequested, Failure> {
    tx.notify();
    if run.has_started() {
        tx.execute(
            "UPDATE runs SET cancel = ?2, updated_at = ?3 WHERE sequence = ?1",
            params![run.sequence, optional(run.cancel.max(Some(kind))), Sql(tx.now)],
        )?;
        return Ok(CancelRequested::Marked { owner: run.owner, is_alive: run.is_driven(tx)? });
    }
    match kind {
        CancelKind::Cancel => {
            tx.execute(
                "UPDATE runs SET status = 'cancelled', updated_at = ?2 WHERE sequence = ?1",
                params![run.sequence, Sql(tx.now)],
            )?;
        }
        CancelKind::Rollback => delete_row(tx, run.sequence)?,
        _ => return Err(Failure::unsupported("an unknown kind of cancel")),
    }
    Ok(CancelRequested::Cancelled)
}

pub(crate) fn delete(tx: &Transaction<'_>, id: RunId) -> Result<Deleted, Failure> {
    let Some(run) = find(tx, id)? else { return Ok(Deleted::NotFound) };
    if run.has_started() {
        return Ok(Deleted::Busy(id));
    }
    delete_row(tx, run.sequence)?;
    tx.notify();
    Ok(Deleted::Yes)
}

//! Threads, their questions and the progress of their steps.

use std::sync::Arc;

use agentflow::{
    RunId,
    store::{
        CheckpointId, Deleted, Edit, Edited, NewAnswer, NewQuestion, NewThread, ProgressRecord, QuestionId,
        QuestionRow, QuestionStatus, Rest, ThreadFilter, ThreadId, ThreadOrder, ThreadPage, ThreadRow, ThreadStatus,
    },
};
use rusqlite::{Row, params, params_from_iter, types::Value as SqlValue};
use serde_json::{Map, Value};

use crate::{
    checkpoints,
    failure::Failure,
    runs,
    transaction::Transaction,
    value::{Sql, get, get_optional, json, optional, stored},
};

/// The columns of a thread that operations need.
#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) key: i64,
    pub(crate) graph: Arc<str>,
    pub(crate) head: Option<CheckpointId>,
    pub(crate) rest: Rest,
}

pub(crate) fn find(tx: &Transaction<'_>, id: &ThreadId) -> Result<Option<Thread>, Failure> {
    tx.one("SELECT key, graph, head, rest FROM threads WHERE id = ?1", [id.as_str()], |row| {
        Ok(Thread {
            key: row.get("key")?,
            graph: row.get("graph")?,
            head: get_optional(row, "head")?,
            rest: get(row, "rest")?,
        })
    })
}

/// Makes a thread.
pub(crate) fn insert(
    tx: &Transaction<'_>,
    id: &ThreadId,
    graph: &str,
    metadata: &Map<String, Value>,
) -> Result<i64, Failure> {
    tx.insert(
        "INSERT INTO threads (id, graph, rest, metadata, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
        params![id.as_str(), graph, Sql(Rest::Idle), serde_json::to_string(metadata)?, Sql(tx.now)],
    )
}

/// Moves the head of a thread.
pub(crate) fn set_head(tx: &Transaction<'_>, thread: i64, head: Option<CheckpointId>) -> Result<(), Failure> {
    tx.execute(
        "UPDATE threads SET head = ?2, updated_at = ?3 WHERE key = ?1",
        params![thread, optional(head), Sql(tx.now)],
    )?;
    Ok(())
}

pub(crate) fn set_rest(tx: &Transaction<'_>, thread: i64, rest: Rest) -> Result<(), Failure> {
    tx.execute(
        "UPDATE threads SET rest = ?2, updated_at = ?3 WHERE key = ?1",
        params![thread, Sql(rest), Sql(tx.now)],
    )?;
    Ok(())
}

// ---- Lists.

/// The columns of a thread; `?1` is the present time.
const COLUMNS: &str = "SELECT t.key, t.id, t.graph, t.head, t.rest, t.metadata, t.created_at, t.updated_at,
    EXISTS (SELECT 1 FROM runs AS r WHERE r.thread = t.key AND r.status IN ('queued', 'running')
        AND (r.status = 'running' OR r.not_before IS NULL OR r.not_before <= ?1)) AS is_busy
    FROM threads AS t";

fn read(row: &Row<'_>) -> Result<ThreadRow, Failure> {
    let id = row.get::<_, String>("id")?;
    let id: ThreadId = id.parse().map_err(|_| Failure::corrupt("a thread has no valid id"))?;
    let mut thread = ThreadRow::new(id, row.get("graph")?, get(row, "created_at")?);
    thread.head = get_optional(row, "head")?;
    thread.status = if row.get("is_busy")? { ThreadStatus::Busy } else { get::<Rest>(row, "rest")?.into() };
    thread.metadata = serde_json::from_str(&row.get::<_, String>("metadata")?)?;
    thread.updated_at = get(row, "updated_at")?;
    Ok(thread)
}

pub(crate) fn by_id(tx: &Transaction<'_>, id: &ThreadId) -> Result<Option<ThreadRow>, Failure> {
    tx.one(&format!("{COLUMNS} WHERE t.id = ?2"), params![Sql(tx.now), id.as_str()], read)
}

pub(crate) fn list(tx: &Transaction<'_>, filter: &ThreadFilter) -> Result<ThreadPage, Failure> {
    let mut values: Vec<SqlValue> = vec![tx.now.as_micros().into()];
    let mut conditions = vec!["1".to_owned()];
    if let Some(graph) = &filter.graph {
        values.push(graph.to_string().into());
        conditions.push(format!("t.graph = ?{}", values.len()));
    }
    if let Some(ids) = &filter.ids {
        // One parameter for all ids, because the number of parameters is limited.
        values.push(serde_json::to_string(ids)?.into());
        conditions.push(format!("t.id IN (SELECT value FROM json_each(?{}))", values.len()));
    }
    match filter.status {
        Some(ThreadStatus::Busy) => conditions.push("is_busy".to_owned()),
        Some(status) => {
            let rest = match status {
                ThreadStatus::Idle => "idle",
                ThreadStatus::Paused => "paused",
                ThreadStatus::Failed => "failed",
                _ => return Err(Failure::unsupported("an unknown state of a thread")),
            };
            conditions.push(format!("NOT is_busy AND t.rest = '{rest}'"));
        }
        None => {}
    }
    if let Some(time) = filter.updated_before {
        values.push(time.as_micros().into());
        conditions.push(format!("t.updated_at < ?{}", values.len()));
    }
    if filter.without_questions {
        conditions
            .push("NOT EXISTS (SELECT 1 FROM questions AS q WHERE q.thread = t.key AND q.status = 'open')".to_owned());
    }
    let order = match filter.order {
        ThreadOrder::Updated => "t.updated_at DESC, t.key DESC",
        ThreadOrder::Created => "t.created_at DESC, t.key DESC",
        ThreadOrder::Id => "t.id",
        _ => return Err(Failure::unsupported("an unknown order of threads")),
    };
    let sql = format!("{COLUMNS} WHERE {} ORDER BY {order}", conditions.join(" AND "));
    let mut page = ThreadPage::default();
    let mut selected = 0;
    let limit = filter.limit.unwrap_or(usize::MAX);
    tx.all(&sql, params_from_iter(values), |row| {
        // A thread that is only counted is not read.
        let is_on_page = selected >= filter.offset && page.threads.len() < limit;
        if !is_on_page && filter.metadata.is_empty() {
            selected += 1;
            return Ok(());
        }
        let thread = read(row)?;
        if has_fields(&thread.metadata, &filter.metadata) {
            selected += 1;
            if is_on_page {
                page.threads.push(thread);
            }
        }
        Ok(())
    })?;
    page.total = selected;
    Ok(page)
}

/// Returns whether an object has all of these fields.
pub(crate) fn has_fields(object: &Map<String, Value>, fields: &Map<String, Value>) -> bool {
    fields.iter().all(|(field, value)| object.get(field) == Some(value))
}

// ---- Changes.

pub(crate) fn create(tx: &Transaction<'_>, new: &NewThread) -> Result<(ThreadRow, bool), Failure> {
    if let Some(thread) = by_id(tx, &new.id)? {
        return Ok((thread, false));
    }
    insert(tx, &new.id, &new.graph, &new.metadata)?;
    let thread = by_id(tx, &new.id)?.ok_or_else(|| Failure::corrupt("a new thread is not there"))?;
    Ok((thread, true))
}

pub(crate) fn patch_metadata(
    tx: &Transaction<'_>,
    id: &ThreadId,
    patch: Map<String, Value>,
) -> Result<Option<ThreadRow>, Failure> {
    let Some(mut thread) = by_id(tx, id)? else { return Ok(None) };
    for (field, value) in patch {
        if value.is_null() {
            thread.metadata.remove(&field);
        } else {
            thread.metadata.insert(field, value);
        }
    }
    thread.updated_at = tx.now;
    tx.execute(
        "UPDATE threads SET metadata = ?2, updated_at = ?3 WHERE id = ?1",
        params![id.as_str(), serde_json::to_string(&thread.metadata)?, Sql(tx.now)],
    )?;
    Ok(Some(thread))
}

pub(crate) fn edit(tx: &Transaction<'_>, edit: &Edit) -> Result<Edited, Failure> {
    let found = find(tx, &edit.thread)?;
    let head = found.as_ref().and_then(|thread| thread.head);
    if let Some(thread) = &found {
        if thread.graph != edit.graph {
            return Ok(Edited::OtherGraph(thread.graph.clone()));
        }
        if let Some(before) = runs::first_due(tx, thread.key)? {
            return Ok(Edited::Busy(before.id));
        }
    }
    if head != edit.expected_head {
        return Ok(Edited::HeadMoved(head));
    }
    let key = match found {
        Some(thread) => thread.key,
        None => insert(tx, &edit.thread, &edit.graph, &Map::new())?,
    };
    let checkpoint = checkpoints::insert(tx, key, None, edit.parent, &edit.checkpoint)?;
    if edit.drops_questions || edit.parent != head {
        drop_questions(tx, key, None)?;
    }
    set_head(tx, key, Some(checkpoint))?;
    set_rest(tx, key, edit.rest)?;
    tx.notify();
    Ok(Edited::Made(checkpoint))
}

pub(crate) fn copy(tx: &Transaction<'_>, from: &ThreadId, to: &ThreadId) -> Result<Option<ThreadRow>, Failure> {
    if find(tx, to)?.is_some() {
        return Err(Failure::invalid(format!("the thread `{to}` exists")));
    }
    let Some(source) = find(tx, from)? else { return Ok(None) };
    let rest = if runs::has_begun(tx, source.key)? { rest_of_head(tx, &source)? } else { source.rest };
    let key = tx.insert(
        "INSERT INTO threads (id, graph, head, rest, metadata, created_at, updated_at)
         SELECT ?2, graph, head, ?3, metadata, ?4, ?4 FROM threads WHERE key = ?1",
        params![source.key, to.as_str(), Sql(rest), Sql(tx.now)],
    )?;
    tx.execute(
        "INSERT INTO checkpoints (thread, id, parent, run, source, step, kind, delta_bytes, state_version, graph_hash,
             created_at, next, position, writes, value)
         SELECT ?2, id, parent, run, source, step, kind, delta_bytes, state_version, graph_hash, created_at, next,
             position, writes, value
         FROM checkpoints WHERE thread = ?1 ORDER BY id",
        [source.key, key],
    )?;
    let open =
        tx.all("SELECT key FROM questions WHERE thread = ?1 AND status = 'open' ORDER BY key", [source.key], |row| {
            Ok(row.get::<_, i64>("key")?)
        })?;
    for question in open {
        tx.execute(
            "INSERT INTO questions (id, thread, node, step, question, asked_by, status, checkpoint, created_at)
             SELECT ?2, ?3, node, step, question, asked_by, status, checkpoint, created_at FROM questions WHERE key = ?1",
            params![question, Sql(QuestionId::new()), key],
        )?;
    }
    by_id(tx, to)
}

/// Returns the state in which a thread rests whose unfinished run is left out.
fn rest_of_head(tx: &Transaction<'_>, thread: &Thread) -> Result<Rest, Failure> {
    let has_position = tx.exists(
        "SELECT 1 FROM checkpoints WHERE thread = ?1 AND id = ?2 AND next <> '[]'",
        params![thread.key, optional(thread.head)],
    )?;
    Ok(if has_position { Rest::Paused } else { Rest::Idle })
}

pub(crate) fn delete(tx: &Transaction<'_>, id: &ThreadId) -> Result<Deleted, Failure> {
    let Some(thread) = find(tx, id)? else { return Ok(Deleted::NotFound) };
    if let Some(running) = runs::running(tx, thread.key)?
        && tx.is_alive(running.owner)?
    {
        return Ok(Deleted::Busy(running.id));
    }
    delete_key(tx, thread.key)?;
    Ok(Deleted::Yes)
}

/// Deletes a thread with all that belongs to it.
pub(crate) fn delete_key(tx: &Transaction<'_>, thread: i64) -> Result<(), Failure> {
    for sql in [
        "DELETE FROM run_inputs WHERE run IN (SELECT sequence FROM runs WHERE thread = ?1)",
        "DELETE FROM runs WHERE thread = ?1",
        "DELETE FROM checkpoints WHERE thread = ?1",
        "DELETE FROM questions WHERE thread = ?1",
        "DELETE FROM progress WHERE thread = ?1",
        "DELETE FROM threads WHERE key = ?1",
    ] {
        tx.execute(sql, [thread])?;
    }
    tx.notify();
    Ok(())
}

// ---- Questions.

const QUESTION_COLUMNS: &str =
    "SELECT id, node, step, question, asked_by, status, answered_by, answer, ended_by, checkpoint,
    created_at FROM questions";

fn read_question(row: &Row<'_>) -> Result<QuestionRow, Failure> {
    let asked = NewQuestion::new(get(row, "id")?, row.get("node")?, row.get("step")?, stored(row, "question")?);
    let (asked_by, checkpoint) = (get(row, "asked_by")?, get_optional(row, "checkpoint")?);
    let mut question = QuestionRow::new(asked, asked_by, checkpoint, get(row, "created_at")?);
    question.status = get(row, "status")?;
    question.answered_by = get_optional(row, "answered_by")?;
    question.answer = row.get::<_, Option<Vec<u8>>>("answer")?.map(Into::into);
    question.ended_by = get_optional(row, "ended_by")?;
    Ok(question)
}

pub(crate) fn questions(
    tx: &Transaction<'_>,
    thread: &ThreadId,
    status: Option<QuestionStatus>,
) -> Result<Vec<QuestionRow>, Failure> {
    let Some(thread) = find(tx, thread)? else { return Ok(Vec::new()) };
    let sql = format!("{QUESTION_COLUMNS} WHERE thread = ?1 AND (?2 IS NULL OR status = ?2) ORDER BY key");
    tx.all(&sql, params![thread.key, optional(status)], read_question)
}

/// Returns the questions of a thread that are open, or that a run has answered.
pub(crate) fn questions_of_run(tx: &Transaction<'_>, thread: i64, run: RunId) -> Result<Vec<QuestionRow>, Failure> {
    let sql = format!(
        "{QUESTION_COLUMNS} WHERE thread = ?1 AND (status = 'open' OR (status = 'answered' AND answered_by = ?2))
         ORDER BY key"
    );
    tx.all(&sql, params![thread, Sql(run)], read_question)
}

/// Returns the first of the questions that are not open, with its state; none if it is no question of the thread.
pub(crate) fn not_open(
    tx: &Transaction<'_>,
    thread: Option<i64>,
    answers: &[NewAnswer],
) -> Result<Option<(QuestionId, Option<QuestionStatus>)>, Failure> {
    for NewAnswer { question, .. } in answers {
        let status = tx.one(
            "SELECT status FROM questions WHERE id = ?1 AND thread = ?2",
            params![Sql(*question), thread],
            |row| Ok(get(row, "status")?),
        )?;
        if status != Some(QuestionStatus::Open) {
            return Ok(Some((*question, status)));
        }
    }
    Ok(None)
}

pub(crate) fn ask(
    tx: &Transaction<'_>,
    thread: i64,
    run: RunId,
    checkpoint: Option<CheckpointId>,
    new: &NewQuestion,
) -> Result<(), Failure> {
    tx.insert(
        "INSERT INTO questions (id, thread, node, step, question, asked_by, status, checkpoint, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'open', ?7, ?8)",
        params![
            Sql(new.id),
            thread,
            new.node,
            new.step,
            json(&new.question)?,
            Sql(run),
            optional(checkpoint),
            Sql(tx.now)
        ],
    )?;
    Ok(())
}

pub(crate) fn answer(tx: &Transaction<'_>, run: RunId, answer: &NewAnswer) -> Result<(), Failure> {
    tx.execute(
        "UPDATE questions SET status = 'answered', answered_by = ?2, answer = ?3 WHERE id = ?1 AND status = 'open'",
        params![Sql(answer.question), Sql(run), json(&answer.answer)?],
    )?;
    Ok(())
}

/// Ends questions of a thread that are in the state `from`.
pub(crate) fn end_questions(
    tx: &Transaction<'_>,
    thread: i64,
    run: RunId,
    questions: &[QuestionId],
    from: QuestionStatus,
    to: QuestionStatus,
) -> Result<(), Failure> {
    for question in questions {
        tx.execute(
            "UPDATE questions SET status = ?5, ended_by = ?3 WHERE id = ?1 AND thread = ?2 AND status = ?4",
            params![Sql(*question), thread, Sql(run), Sql(from), Sql(to)],
        )?;
    }
    Ok(())
}

/// Opens answered questions of a thread.
pub(crate) fn reopen(tx: &Transaction<'_>, thread: i64, questions: &[QuestionId]) -> Result<(), Failure> {
    for question in questions {
        tx.execute(
            "UPDATE questions SET status = 'open', answered_by = NULL, answer = NULL
             WHERE id = ?1 AND thread = ?2 AND status = 'answered'",
            params![Sql(*question), thread],
        )?;
    }
    Ok(())
}

/// Drops the open questions of a thread, and deletes its progress.
pub(crate) fn drop_questions(tx: &Transaction<'_>, thread: i64, run: Option<RunId>) -> Result<(), Failure> {
    tx.execute(
        "UPDATE questions SET status = 'dropped', ended_by = ?2 WHERE thread = ?1 AND status = 'open'",
        params![thread, optional(run)],
    )?;
    tx.execute("DELETE FROM progress WHERE thread = ?1", [thread])?;
    Ok(())
}

/// Gives the questions of a thread the states that they had before a run.
pub(crate) fn roll_questions_back(tx: &Transaction<'_>, thread: i64, run: RunId) -> Result<(), Failure> {
    for sql in [
        "DELETE FROM questions WHERE thread = ?1 AND asked_by = ?2",
        "UPDATE questions SET status = 'open', ended_by = NULL
         WHERE thread = ?1 AND status = 'dropped' AND ended_by = ?2",
        "UPDATE questions SET status = 'answered', ended_by = NULL
         WHERE thread = ?1 AND status = 'closed' AND ended_by = ?2",
        "UPDATE questions SET status = 'open', answered_by = NULL, answer = NULL
         WHERE thread = ?1 AND status = 'answered' AND answered_by = ?2",
        "DELETE FROM progress WHERE thread = ?1 AND run = ?2",
    ] {
        tx.execute(sql, params![thread, Sql(run)])?;
    }
    Ok(())
}

// ---- Progress.

pub(crate) fn progress(tx: &Transaction<'_>, thread: &ThreadId) -> Result<Vec<ProgressRecord>, Failure> {
    match find(tx, thread)? {
        Some(thread) => progress_of_key(tx, thread.key),
        None => Ok(Vec::new()),
    }
}

pub(crate) fn progress_of_key(tx: &Transaction<'_>, thread: i64) -> Result<Vec<ProgressRecord>, Failure> {
    tx.all("SELECT step, path, record FROM progress WHERE thread = ?1 ORDER BY path, step", [thread], |row| {
        Ok(ProgressRecord::new(row.get("step")?, row.get("path")?, stored(row, "record")?))
    })
}

pub(crate) fn record(
    tx: &Transaction<'_>,
    thread: i64,
    run: RunId,
    progress: &[ProgressRecord],
) -> Result<(), Failure> {
    for record in progress {
        tx.execute(
            "INSERT INTO progress (thread, step, path, run, record) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (thread, step, path) DO UPDATE SET run = excluded.run, record = excluded.record",
            params![thread, record.step, record.path, Sql(run), json(&record.record)?],
        )?;
    }
    Ok(())
}

pub(crate) fn clear_progress(tx: &Transaction<'_>, thread: i64, step: &str) -> Result<(), Failure> {
    tx.execute("DELETE FROM progress WHERE thread = ?1 AND step = ?2", params![thread, step])?;
    Ok(())
}

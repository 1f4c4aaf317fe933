//! Threads: lists, edits, copies, deletes, and what prunes their checkpoints.

use std::collections::{HashMap, HashSet};

use agentflow::store::{
    CheckpointId, Deleted, Edit, Edited, NewThread, ProgressRecord, QuestionId, QuestionRow, QuestionStatus,
    StoreError, StoreErrorKind, ThreadFilter, ThreadId, ThreadOrder, ThreadPage, ThreadRow, Timestamp,
};
use serde_json::{Map, Value};

use crate::{
    checkpoints::{self, Parent},
    error, rows,
    rows::Columns,
    runs::{LockedThread, NOTIFY, drop_questions},
    takeover::{PROGRESS, progress_of},
    transaction::{Read, Session},
    value::{Array, args, count, labels, limit, one, to_json},
};

fn select(rest: &str) -> String {
    format!("SELECT {} FROM agentflow_threads t {rest}", rows::THREAD)
}

pub(crate) async fn create(session: Session, new: NewThread) -> Result<(ThreadRow, bool), StoreError> {
    let operation = session.operation;
    let mut transaction = session.begin();
    let sql = "INSERT INTO agentflow_threads (id, graph, metadata, labels, created, updated)
        SELECT $1, $2, $3, agentflow_labels($4), now, now FROM agentflow_now() AS now ON CONFLICT DO NOTHING
        RETURNING id";
    let metadata = to_json(operation, &new.metadata)?;
    let labels = labels(operation, &new.metadata)?;
    let [created, row] = transaction
        .read([(sql, args![&new.id, &new.graph, metadata, labels]), (&select("WHERE t.id = $1"), args![&new.id])])
        .await?;
    let row = row.first().map(|row| rows::thread(operation, row)).transpose()?;
    transaction.commit().await?;
    // The thread was there, and was deleted in this moment.
    let row = row.ok_or_else(|| StoreError::new(operation, StoreErrorKind::Unavailable))?;
    Ok((row, !created.is_empty()))
}

pub(crate) async fn get(mut session: Session, thread: &ThreadId) -> Result<Option<ThreadRow>, StoreError> {
    let [row] = session.read([(&*select("WHERE t.id = $1"), args![thread])]).await?;
    row.first().map(|row| rows::thread(session.operation, row)).transpose()
}

pub(crate) async fn list(mut session: Session, filter: ThreadFilter) -> Result<ThreadPage, StoreError> {
    let operation = session.operation;
    let condition = "($1::bytea IS NULL OR graph = $1) AND ($2::bytea[] IS NULL OR id = ANY ($2))
        AND ($3::text IS NULL OR $3 = CASE WHEN busy THEN 'busy' ELSE rest END) AND labels @> agentflow_labels($4)
        AND ($5::bigint IS NULL OR updated < $5)
        AND NOT ($6 AND EXISTS (
            SELECT FROM agentflow_questions q WHERE q.thread = found.id AND q.status = 'open'))";
    let order = match filter.order {
        ThreadOrder::Id => "id",
        ThreadOrder::Created => "created DESC, id DESC",
        _ => "updated DESC, id DESC",
    };
    let found = format!("(SELECT {}, t.labels FROM agentflow_threads t) AS found WHERE {condition}", rows::THREAD);
    let labels = || labels(operation, &filter.metadata);
    let ids = || filter.ids.as_ref().map(|ids| ids.iter().collect::<Array<&ThreadId>>());
    let graph = filter.graph.as_ref();
    let [page, total] = session
        .read([
            (
                &*format!("SELECT * FROM {found} ORDER BY {order} OFFSET $7 LIMIT $8"),
                args![
                    graph,
                    ids(),
                    filter.status,
                    labels()?,
                    filter.updated_before,
                    filter.without_questions,
                    count(filter.offset),
                    limit(filter.limit),
                ],
            ),
            (
                &*format!("SELECT count(*) AS total FROM {found}"),
                args![graph, ids(), filter.status, labels()?, filter.updated_before, filter.without_questions],
            ),
        ])
        .await?;
    let threads = page.iter().map(|row| rows::thread(operation, row)).collect::<Result<_, _>>()?;
    let total: i64 = one(operation, &total, "total")?;
    Ok(ThreadPage::new(threads, usize::try_from(total).unwrap_or_default()))
}

pub(crate) async fn patch_metadata(
    session: Session,
    thread: &ThreadId,
    patch: Map<String, Value>,
) -> Result<Option<ThreadRow>, StoreError> {
    let operation = session.operation;
    let mut transaction = session.begin();
    let sql = "SELECT metadata FROM agentflow_threads WHERE id = $1 FOR UPDATE";
    let [row] = transaction.read([(sql, args![thread])]).await?;
    let Some(row) = row.first() else {
        transaction.roll_back().await?;
        return Ok(None);
    };
    let mut metadata: Map<String, Value> = Columns::new(operation, row).json("metadata")?;
    for (key, value) in patch {
        if value.is_null() {
            metadata.remove(&key);
        } else {
            metadata.insert(key, value);
        }
    }
    transaction.write(
        "UPDATE agentflow_threads SET metadata = $2, labels = agentflow_labels($3), updated = agentflow_now()
            WHERE id = $1",
        args![thread, to_json(operation, &metadata)?, labels(operation, &metadata)?],
    );
    let [row] = transaction.read([(&*select("WHERE t.id = $1"), args![thread])]).await?;
    let row = row.first().map(|row| rows::thread(operation, row)).transpose()?;
    transaction.commit().await?;
    Ok(row)
}

pub(crate) async fn questions(
    mut session: Session,
    thread: &ThreadId,
    status: Option<QuestionStatus>,
) -> Result<Vec<QuestionRow>, StoreError> {
    let sql =
        "SELECT * FROM agentflow_questions WHERE thread = $1 AND ($2::text IS NULL OR status = $2) ORDER BY sequence";
    let [found] = session.read([(sql, args![thread, status])]).await?;
    found.iter().map(|row| rows::question(session.operation, row)).collect()
}

pub(crate) async fn progress(mut session: Session, thread: &ThreadId) -> Result<Vec<ProgressRecord>, StoreError> {
    let [found] = session.read([(PROGRESS, args![thread])]).await?;
    progress_of(session.operation, &found)
}

pub(crate) async fn edit(session: Session, edit: Edit) -> Result<Edited, StoreError> {
    let operation = session.operation;
    let mut transaction = session.begin();
    transaction.write(
        "INSERT INTO agentflow_threads (id, graph, metadata, labels, created, updated)
            VALUES ($1, $2, '{}', '{}', agentflow_now(), agentflow_now()) ON CONFLICT DO NOTHING",
        args![&edit.thread, &edit.graph],
    );
    let unfinished = "SELECT id FROM agentflow_runs WHERE thread = $1 AND (status = 'running'
            OR status = 'queued' AND (not_before IS NULL OR not_before <= agentflow_now()))
        ORDER BY status = 'running' DESC, started DESC, sequence LIMIT 1";
    let [thread, busy, now] = transaction
        .read([
            (LockedThread::BY_ID, args![&edit.thread]),
            (unfinished, args![&edit.thread]),
            ("SELECT agentflow_now() AS now", args![]),
        ])
        .await?;
    let now: Timestamp = one(operation, &now, "now")?;
    let gone = || StoreError::new(operation, StoreErrorKind::Unavailable);
    let mut thread = LockedThread::read(operation, &thread)?.ok_or_else(gone)?;
    let refused = if thread.graph != edit.graph {
        Some(Edited::OtherGraph(thread.graph.clone()))
    } else if let Some(row) = busy.first() {
        Some(Edited::Busy(Columns::new(operation, row).get("id")?))
    } else if thread.head != edit.expected_head {
        Some(Edited::HeadMoved(thread.head))
    } else {
        None
    };
    if let Some(refused) = refused {
        transaction.roll_back().await?;
        return Ok(refused);
    }
    let mut parent = Parent::NONE;
    if let Some(id) = edit.parent {
        let none = || error::invalid(operation, format!("the thread has no checkpoint {id}"));
        parent = checkpoints::parent(&mut transaction, &thread.id, id).await?.ok_or_else(none)?;
    }
    let id = thread.next_id();
    checkpoints::insert(&mut transaction, &thread.id, id, parent, None, &edit.checkpoint, now)?;
    if edit.drops_questions || edit.parent != thread.head {
        drop_questions(&mut transaction, &thread.id, None);
    }
    transaction.write(
        "UPDATE agentflow_threads SET head = $2, newest = $2, rest = $3, updated = $4 WHERE id = $1",
        args![&thread.id, id, edit.rest, now],
    );
    transaction.write(NOTIFY, args![]);
    transaction.commit().await?;
    Ok(Edited::Made(id))
}

pub(crate) async fn copy(session: Session, from: &ThreadId, to: &ThreadId) -> Result<Option<ThreadRow>, StoreError> {
    let operation = session.operation;
    let mut transaction = session.begin();
    let target = "INSERT INTO agentflow_threads (id, graph, head, newest, rest, metadata, labels, created, updated)
        SELECT $2, t.graph, t.head, t.newest, CASE
                WHEN NOT EXISTS (SELECT FROM agentflow_runs r
                    WHERE r.thread = t.id AND r.status IN ('queued', 'running') AND r.started) THEN t.rest
                WHEN EXISTS (SELECT FROM agentflow_checkpoints c
                    WHERE c.thread = t.id AND c.id = t.head AND c.next <> '{}') THEN 'paused'
                ELSE 'idle' END,
            t.metadata, t.labels, now, now
        FROM agentflow_threads t, agentflow_now() AS now WHERE t.id = $1 ON CONFLICT DO NOTHING RETURNING id";
    let open = "SELECT count(*) AS open FROM agentflow_questions WHERE thread = $1 AND status = 'open'";
    let [source, created, open] =
        transaction.read([(LockedThread::BY_ID, args![from]), (target, args![from, to]), (open, args![from])]).await?;
    if source.is_empty() {
        transaction.roll_back().await?;
        return Ok(None);
    }
    if created.is_empty() {
        transaction.roll_back().await?;
        return Err(error::invalid(operation, format!("the thread {to} exists")));
    }
    transaction.write(
        "INSERT INTO agentflow_checkpoints (thread, id, parent, run, source, step, snapshot, delta, delta_bytes,
                state_version, next, position, writes, graph_hash, created)
            SELECT $2, id, parent, run, source, step, snapshot, delta, delta_bytes, state_version, next, position, writes,
                graph_hash, created
            FROM agentflow_checkpoints WHERE thread = $1",
        args![from, to],
    );
    let open: i64 = one(operation, &open, "open")?;
    let ids: Array<QuestionId> = (0..open).map(|_| QuestionId::new()).collect();
    transaction.write(
        "INSERT INTO agentflow_questions (id, thread, node, step, question, asked_by, checkpoint, created)
            SELECT new.id, $2, q.node, q.step, q.question, q.asked_by, q.checkpoint, q.created
            FROM (SELECT *, row_number() OVER (ORDER BY sequence) AS number FROM agentflow_questions
                WHERE thread = $1 AND status = 'open') AS q
            JOIN unnest($3::uuid[]) WITH ORDINALITY AS new (id, number) USING (number) ORDER BY number",
        args![from, to, ids],
    );
    let [row] = transaction.read([(&*select("WHERE t.id = $1"), args![to])]).await?;
    let row = row.first().map(|row| rows::thread(operation, row)).transpose()?;
    transaction.commit().await?;
    Ok(row)
}

pub(crate) async fn delete(session: Session, thread: &ThreadId) -> Result<Deleted, StoreError> {
    let operation = session.operation;
    let mut transaction = session.begin();
    let driven = "SELECT id FROM agentflow_runs WHERE thread = $1 AND status = 'running' AND agentflow_is_alive(owner)";
    let [row, driven] = transaction.read([(LockedThread::BY_ID, args![thread]), (driven, args![thread])]).await?;
    if row.is_empty() {
        transaction.roll_back().await?;
        return Ok(Deleted::NotFound);
    }
    if let Some(row) = driven.first() {
        let run = Columns::new(operation, row).get("id")?;
        transaction.roll_back().await?;
        return Ok(Deleted::Busy(run));
    }
    transaction.write("DELETE FROM agentflow_threads WHERE id = $1", args![thread]);
    transaction.write(NOTIFY, args![]);
    transaction.commit().await?;
    Ok(Deleted::Yes)
}

/// A checkpoint, as far as a prune needs it.
struct Entry {
    id: CheckpointId,
    parent: Option<CheckpointId>,
    /// The length of the difference to the parent's state; `None` for a whole state.
    delta: Option<u64>,
    delta_bytes: u64,
    is_kept: bool,
}

pub(crate) async fn prune(session: Session, thread: &ThreadId, keep: usize) -> Result<usize, StoreError> {
    let operation = session.operation;
    let mut transaction = session.begin();
    let entries = "SELECT c.id, c.parent, c.snapshot IS NOT NULL AS is_whole,
            coalesce(octet_length(c.delta), 0)::bigint AS delta, c.delta_bytes,
            EXISTS (SELECT FROM agentflow_questions q
                WHERE q.thread = $1 AND q.checkpoint = c.id AND q.status = 'open')
            OR EXISTS (SELECT FROM agentflow_runs r WHERE r.thread = $1 AND r.status IN ('queued', 'running')
                AND c.id IN (r.base, r.head_before, r.last_checkpoint)) AS is_used
        FROM agentflow_checkpoints c WHERE c.thread = $1 ORDER BY c.id";
    let [row, entries] = transaction.read([(LockedThread::BY_ID, args![thread]), (entries, args![thread])]).await?;
    let Some(head) = LockedThread::read(operation, &row)?.map(|thread| thread.head) else {
        transaction.roll_back().await?;
        return Ok(0);
    };
    let mut all = Vec::with_capacity(entries.len());
    for row in &entries {
        let columns = Columns::new(operation, row);
        let id = columns.get("id")?;
        let delta = if columns.get("is_whole")? { None } else { Some(columns.get("delta")?) };
        let is_kept = columns.get("is_used")? || Some(id) == head;
        let delta_bytes = columns.get("delta_bytes")?;
        all.push(Entry { id, parent: columns.get("parent")?, delta, delta_bytes, is_kept });
    }
    keep_newest(&mut all, keep);
    let gone: Vec<CheckpointId> = all.iter().filter(|entry| !entry.is_kept).map(|entry| entry.id).collect();
    if gone.is_empty() {
        transaction.roll_back().await?;
        return Ok(0);
    }
    let is_gone: HashSet<CheckpointId> = gone.iter().copied().collect();
    let oldest = |entry: &&Entry| entry.is_kept && entry.parent.is_some_and(|parent| is_gone.contains(&parent));
    let oldest: Vec<CheckpointId> = all.iter().filter(oldest).map(|entry| entry.id).collect();
    let states = checkpoints::states(&mut transaction, thread, oldest).await?;
    let mut lengths: HashMap<CheckpointId, u64> = HashMap::new();
    for entry in all.iter().filter(|entry| entry.is_kept) {
        let is_whole = entry.delta.is_none() || states.contains_key(&entry.id);
        let before = entry.parent.and_then(|parent| lengths.get(&parent)).copied().unwrap_or_default();
        let length = if is_whole { 0 } else { before + entry.delta.unwrap_or_default() };
        lengths.insert(entry.id, length);
        if length != entry.delta_bytes {
            transaction.write(
                "UPDATE agentflow_checkpoints SET delta_bytes = $3 WHERE thread = $1 AND id = $2",
                args![thread, entry.id, length],
            );
        }
    }
    for (id, state) in states {
        transaction.write(
            "UPDATE agentflow_checkpoints SET snapshot = $3, delta = NULL, delta_bytes = 0, parent = NULL
                WHERE thread = $1 AND id = $2",
            args![thread, id, state],
        );
    }
    let pruned = gone.len();
    transaction
        .write("DELETE FROM agentflow_checkpoints WHERE thread = $1 AND id = ANY ($2)", args![thread, Array(gone)]);
    transaction.commit().await?;
    Ok(pruned)
}

/// Keeps the newest checkpoints of each branch: of the path to each checkpoint that has no child.
fn keep_newest(all: &mut [Entry], keep: usize) {
    let place: HashMap<CheckpointId, usize> = all.iter().enumerate().map(|(place, entry)| (entry.id, place)).collect();
    let parents: HashSet<CheckpointId> = all.iter().filter_map(|entry| entry.parent).collect();
    let leaves: Vec<usize> = (0..all.len()).filter(|place| !parents.contains(&all[*place].id)).collect();
    for leaf in leaves {
        let mut at = Some(leaf);
        for _ in 0..keep {
            let Some(entry) = at.and_then(|place| all.get_mut(place)) else { break };
            entry.is_kept = true;
            at = entry.parent.and_then(|parent| place.get(&parent).copied());
        }
    }
}

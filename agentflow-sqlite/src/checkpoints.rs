//! Checkpoints: the chains of states of a thread.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use agentflow::{
    RunId,
    store::{
        CheckpointId, CheckpointRow, HistoryFilter, NewCheckpoint, NewValues, Source, Stored, ThreadId, delta::fold,
    },
};
use bytes::Bytes;
use rusqlite::{Row, params};

use crate::{
    failure::Failure,
    threads,
    transaction::Transaction,
    value::{Sql, bytes, count, get, get_optional, integer, json, optional, stored},
};

const COLUMNS: &str = "SELECT id, parent, run, source, step, kind, delta_bytes, state_version, graph_hash, created_at,
    next, position, writes, value FROM checkpoints";

/// Makes a checkpoint of a thread. The head stays where it is.
pub(crate) fn insert(
    tx: &Transaction<'_>,
    thread: i64,
    run: Option<RunId>,
    parent: Option<CheckpointId>,
    new: &NewCheckpoint,
) -> Result<CheckpointId, Failure> {
    // The greatest id is asked for as well, so that the new one is greater also if the clock went back.
    let (last, before) = tx
        .one(
            "SELECT (SELECT max(id) FROM checkpoints WHERE thread = ?1) AS last,
                (SELECT step FROM checkpoints WHERE thread = ?1 AND id = ?2) AS step,
                (SELECT delta_bytes FROM checkpoints WHERE thread = ?1 AND id = ?2) AS delta_bytes",
            params![thread, optional(parent)],
            |row| {
                let step: Option<i64> = row.get("step")?;
                let before = match step {
                    Some(step) => Some((step, count(row, "delta_bytes")?)),
                    None => None,
                };
                Ok((get_optional(row, "last")?, before))
            },
        )?
        .unwrap_or_default();
    if parent.is_some() && before.is_none() {
        return Err(Failure::invalid("the checkpoint's parent is not there"));
    }
    let (kind, value, delta_bytes) = match (&new.values, before) {
        (NewValues::Snapshot(value), _) => ("snapshot", Some(json(value)?), 0),
        (NewValues::Same, Some((_, delta_bytes))) => ("same", None, delta_bytes),
        (NewValues::Delta(delta), Some((_, delta_bytes))) => {
            ("delta", Some(&delta[..]), delta_bytes.saturating_add(delta.len() as u64))
        }
        (NewValues::Same | NewValues::Delta(_), None) => {
            return Err(Failure::invalid("a checkpoint without a parent needs a whole state"));
        }
    };
    let id = CheckpointId::after(last);
    tx.insert(
        "INSERT INTO checkpoints (thread, id, parent, run, source, step, kind, delta_bytes, state_version, graph_hash,
             created_at, next, position, writes, value)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
        params![
            thread,
            Sql(id),
            optional(parent),
            optional(run),
            Sql(new.source),
            before.map_or(-1, |(step, _)| step + 1),
            kind,
            integer(delta_bytes),
            new.state_version,
            integer(new.graph_hash),
            Sql(tx.now),
            serde_json::to_string(&new.next)?,
            json(&new.position)?,
            new.writes.as_deref(),
            value,
        ],
    )?;
    Ok(id)
}

pub(crate) fn exists(tx: &Transaction<'_>, thread: i64, id: CheckpointId) -> Result<bool, Failure> {
    tx.exists("SELECT 1 FROM checkpoints WHERE thread = ?1 AND id = ?2", params![thread, Sql(id)])
}

/// The states that are folded already. A list of checkpoints folds each of them from the one before.
type Folded = HashMap<CheckpointId, Bytes>;

/// Returns the state of a checkpoint: the last whole state before it, with the differences since.
fn values(tx: &Transaction<'_>, thread: i64, id: CheckpointId, folded: &mut Folded) -> Result<Bytes, Failure> {
    let mut deltas: Vec<Vec<u8>> = Vec::new();
    let mut at = id;
    let whole = loop {
        if let Some(state) = folded.get(&at) {
            break state.clone();
        }
        let link = tx.one(
            "SELECT kind, value, parent FROM checkpoints WHERE thread = ?1 AND id = ?2",
            params![thread, Sql(at)],
            |row| {
                let kind: String = row.get("kind")?;
                Ok((kind, row.get::<_, Option<Vec<u8>>>("value")?, get_optional(row, "parent")?))
            },
        )?;
        match link {
            Some((kind, Some(value), _)) if kind == "snapshot" => break value.into(),
            Some((kind, Some(value), Some(parent))) if kind == "delta" => {
                deltas.push(value);
                at = parent;
            }
            Some((kind, None, Some(parent))) if kind == "same" => at = parent,
            _ => return Err(Failure::corrupt(format!("the state of the checkpoint {id} has no beginning"))),
        }
    };
    let state = if deltas.is_empty() { whole } else { fold(&whole, deltas.iter().rev().map(Vec::as_slice))?.into() };
    folded.insert(id, state.clone());
    Ok(state)
}

/// Reads the columns of a checkpoint. Its state is folded afterwards.
fn read(row: &Row<'_>) -> Result<CheckpointRow, Failure> {
    let next: Vec<Arc<str>> = serde_json::from_str(&row.get::<_, String>("next")?)?;
    let source: Source = get(row, "source")?;
    let mut new = NewCheckpoint::new(source, NewValues::Same, next, stored(row, "position")?);
    new.state_version = row.get("state_version")?;
    new.graph_hash = count(row, "graph_hash")?;
    new.writes = row.get::<_, Option<Vec<u8>>>("writes")?.map(Bytes::from);
    let is_whole = row.get::<_, String>("kind")? == "snapshot";
    let state = if is_whole { bytes(row, "value")? } else { Bytes::new() };
    let (id, step) = (get(row, "id")?, row.get("step")?);
    let mut checkpoint = CheckpointRow::new(id, step, new, Stored::Json(state), get(row, "created_at")?);
    checkpoint.parent = get_optional(row, "parent")?;
    checkpoint.run = get_optional(row, "run")?;
    checkpoint.delta_bytes = count(row, "delta_bytes")?;
    Ok(checkpoint)
}

/// Returns a checkpoint of the thread with this key.
pub(crate) fn by_id(tx: &Transaction<'_>, thread: i64, id: CheckpointId) -> Result<Option<CheckpointRow>, Failure> {
    let sql = format!("{COLUMNS} WHERE thread = ?1 AND id = ?2");
    let Some(mut checkpoint) = tx.one(&sql, params![thread, Sql(id)], read)? else { return Ok(None) };
    fill(tx, thread, &mut checkpoint, &mut Folded::new())?;
    Ok(Some(checkpoint))
}

/// Folds the state of a checkpoint that has none yet.
fn fill(tx: &Transaction<'_>, thread: i64, checkpoint: &mut CheckpointRow, folded: &mut Folded) -> Result<(), Failure> {
    if let Some(whole) = checkpoint.values.json().filter(|json| !json.is_empty()) {
        folded.insert(checkpoint.id, whole.clone());
    } else {
        checkpoint.values = Stored::Json(values(tx, thread, checkpoint.id, folded)?);
    }
    Ok(())
}

pub(crate) fn load(
    tx: &Transaction<'_>,
    thread: &ThreadId,
    at: Option<CheckpointId>,
) -> Result<Option<CheckpointRow>, Failure> {
    let Some(thread) = threads::find(tx, thread)? else { return Ok(None) };
    match at.or(thread.head) {
        Some(id) => by_id(tx, thread.key, id),
        None => Ok(None),
    }
}

pub(crate) fn history(
    tx: &Transaction<'_>,
    thread: &ThreadId,
    filter: &HistoryFilter,
) -> Result<Vec<CheckpointRow>, Failure> {
    let Some(thread) = threads::find(tx, thread)? else { return Ok(Vec::new()) };
    let sql = format!(
        "{COLUMNS} WHERE thread = ?1 AND (?2 IS NULL OR id < ?2) AND (?3 IS NULL OR run = ?3)
            AND (?4 IS NULL OR source = ?4)
         ORDER BY id DESC LIMIT ?5"
    );
    let limit = limit(filter.limit);
    let mut page = tx.all(
        &sql,
        params![thread.key, optional(filter.before), optional(filter.run), optional(filter.source), limit],
        read,
    )?;
    let mut folded = Folded::new();
    for checkpoint in page.iter_mut().rev() {
        fill(tx, thread.key, checkpoint, &mut folded)?;
    }
    Ok(page)
}

/// Returns a limit in the form that SQLite understands: a negative one is none.
pub(crate) fn limit(limit: Option<usize>) -> i64 {
    limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX))
}

/// A checkpoint's place in the tree of a thread.
struct Link {
    id: CheckpointId,
    parent: Option<CheckpointId>,
    run: Option<RunId>,
    is_whole: bool,
}

/// Returns the tree of a thread, the oldest checkpoint first: every parent is before its children.
fn links(tx: &Transaction<'_>, thread: i64) -> Result<Vec<Link>, Failure> {
    tx.all(
        "SELECT id, parent, run, kind = 'snapshot' AS is_whole FROM checkpoints WHERE thread = ?1 ORDER BY id",
        [thread],
        |row| {
            Ok(Link {
                id: get(row, "id")?,
                parent: get_optional(row, "parent")?,
                run: get_optional(row, "run")?,
                is_whole: row.get("is_whole")?,
            })
        },
    )
}

fn delete(tx: &Transaction<'_>, thread: i64, id: CheckpointId) -> Result<(), Failure> {
    tx.execute("DELETE FROM checkpoints WHERE thread = ?1 AND id = ?2", params![thread, Sql(id)])?;
    Ok(())
}

/// Deletes the checkpoints of a run that no other run's checkpoint follows.
pub(crate) fn delete_of_run(tx: &Transaction<'_>, thread: i64, run: RunId) -> Result<(), Failure> {
    let mut parents = HashSet::new();
    for link in links(tx, thread)?.into_iter().rev() {
        if link.run == Some(run) && !parents.contains(&link.id) {
            delete(tx, thread, link.id)?;
        } else {
            parents.extend(link.parent);
        }
    }
    Ok(())
}

pub(crate) fn prune(tx: &Transaction<'_>, thread: &ThreadId, keep: usize) -> Result<usize, Failure> {
    let Some(thread) = threads::find(tx, thread)? else { return Ok(0) };
    let links = links(tx, thread.key)?;
    let parent_of: HashMap<_, _> = links.iter().map(|link| (link.id, link.parent)).collect();
    let parents: HashSet<_> = links.iter().filter_map(|link| link.parent).collect();
    let mut kept = needed(tx, thread.key)?;
    kept.extend(thread.head);
    for end in links.iter().filter(|link| !parents.contains(&link.id)) {
        let branch = std::iter::successors(Some(end.id), |id| parent_of.get(id).copied().flatten());
        kept.extend(branch.take(keep));
    }
    let mut folded = Folded::new();
    for link in links.iter().filter(|link| kept.contains(&link.id)) {
        let Some(parent) = link.parent.filter(|parent| !kept.contains(parent)) else { continue };
        debug_assert!(parent_of.contains_key(&parent), "a parent is deleted only by what makes its children whole");
        let whole = if link.is_whole { None } else { Some(values(tx, thread.key, link.id, &mut folded)?) };
        tx.execute(
            "UPDATE checkpoints SET kind = 'snapshot', parent = NULL, delta_bytes = 0, value = coalesce(?3, value)
             WHERE thread = ?1 AND id = ?2",
            params![thread.key, Sql(link.id), whole.as_deref()],
        )?;
        // Only the chain of this one was needed.
        folded.clear();
    }
    recount(tx, thread.key, &links, &kept)?;
    let deleted = links.iter().filter(|link| !kept.contains(&link.id));
    let mut count = 0;
    for link in deleted {
        delete(tx, thread.key, link.id)?;
        count += 1;
    }
    Ok(count)
}

/// Counts the bytes of the differences anew behind the states that have become whole.
fn recount(tx: &Transaction<'_>, thread: i64, links: &[Link], kept: &HashSet<CheckpointId>) -> Result<(), Failure> {
    for link in links.iter().filter(|link| kept.contains(&link.id)) {
        let Some(parent) = link.parent.filter(|parent| kept.contains(parent)) else { continue };
        tx.execute(
            "UPDATE checkpoints SET delta_bytes = coalesce(length(value), 0) +
                 (SELECT delta_bytes FROM checkpoints WHERE thread = ?1 AND id = ?3)
             WHERE thread = ?1 AND id = ?2 AND kind <> 'snapshot'",
            params![thread, Sql(link.id), Sql(parent)],
        )?;
    }
    Ok(())
}

/// Returns the checkpoints that an open question hangs on, or that an unfinished run began at, follows, or would be rolled
/// back to.
fn needed(tx: &Transaction<'_>, thread: i64) -> Result<HashSet<CheckpointId>, Failure> {
    let ids = tx.all(
        "SELECT checkpoint AS id FROM questions WHERE thread = ?1 AND status = 'open'
         UNION SELECT base FROM runs WHERE thread = ?1 AND status IN ('queued', 'running')
         UNION SELECT head_before FROM runs WHERE thread = ?1 AND status IN ('queued', 'running')
         UNION SELECT last_checkpoint FROM runs WHERE thread = ?1 AND status IN ('queued', 'running')",
        [thread],
        |row| Ok(get_optional(row, "id")?),
    )?;
    Ok(ids.into_iter().flatten().collect())
}

//! Checkpoints: each has its whole state, or the difference to its parent's.

use std::collections::HashMap;

use agentflow::{
    RunId,
    store::{
        CheckpointId, CheckpointRow, HistoryFilter, NewCheckpoint, NewValues, StoreError, Stored, ThreadId, Timestamp,
        delta::fold,
    },
};
use bytes::Bytes;
use tokio_postgres::Row;

use crate::{
    error,
    rows::Columns,
    transaction::{Read, Transaction},
    value::{Array, args, json, limit},
};

/// The checkpoint that a new one follows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parent {
    pub(crate) id: Option<CheckpointId>,
    step: i64,
    delta_bytes: u64,
}

impl Parent {
    /// The place before the first checkpoint of a branch, whose number is −1.
    pub(crate) const NONE: Self = Self { id: None, step: -2, delta_bytes: 0 };

    /// Reads the columns `id`, `step` and `delta_bytes` of a checkpoint.
    pub(crate) fn read(columns: Columns<'_>) -> Result<Self, StoreError> {
        let id = Some(columns.get("id")?);
        Ok(Self { id, step: columns.get("step")?, delta_bytes: columns.get("delta_bytes")? })
    }
}

/// Returns what a new checkpoint needs of its parent; `None` if that is not there.
pub(crate) async fn parent(
    read: &mut impl Read,
    thread: &ThreadId,
    id: CheckpointId,
) -> Result<Option<Parent>, StoreError> {
    let sql = "SELECT id, step, delta_bytes FROM agentflow_checkpoints WHERE thread = $1 AND id = $2";
    let operation = read.operation();
    let [rows] = read.read([(sql, args![thread, id])]).await?;
    rows.first().map(|row| Parent::read(Columns::new(operation, row))).transpose()
}

/// Writes a new checkpoint, which becomes the parent of the next one.
pub(crate) fn insert(
    transaction: &mut Transaction,
    thread: &ThreadId,
    id: CheckpointId,
    parent: Parent,
    run: Option<RunId>,
    new: &NewCheckpoint,
    now: Timestamp,
) -> Result<Parent, StoreError> {
    let operation = transaction.operation();
    let (snapshot, delta) = match &new.values {
        NewValues::Snapshot(state) => (Some(json(operation, state)?), None),
        _ if parent.id.is_none() => return Err(error::invalid(operation, "the first checkpoint has no whole state")),
        NewValues::Delta(delta) => (None, Some(delta.clone())),
        NewValues::Same => (None, None),
    };
    let delta_bytes = match (&snapshot, &delta) {
        (Some(_), _) => 0,
        (None, Some(delta)) => parent.delta_bytes + delta.len() as u64,
        (None, None) => parent.delta_bytes,
    };
    let step = parent.step + 1;
    let sql = "INSERT INTO agentflow_checkpoints (thread, id, parent, run, source, step, snapshot, delta, delta_bytes,
            state_version, next, position, writes, graph_hash, created)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";
    let next: Array<&str> = new.next.iter().map(|name| &**name).collect();
    let position = json(operation, &new.position)?;
    #[rustfmt::skip]
    let arguments = args![
        thread, id, parent.id, run, new.source, step, snapshot, delta, delta_bytes, new.state_version, next, position,
        new.writes.clone(), new.graph_hash, now,
    ];
    transaction.write(sql, arguments);
    Ok(Parent { id: Some(id), step, delta_bytes })
}

/// The columns of a checkpoint `c` but its state.
const COLUMNS: &str = "c.id, c.parent, c.run, c.source, c.step, c.delta_bytes, c.state_version, c.next, c.position,
    c.writes, c.graph_hash, c.created";

/// Returns the checkpoint with this id, or else the head.
pub(crate) async fn load(
    read: &mut impl Read,
    thread: &ThreadId,
    at: Option<CheckpointId>,
) -> Result<Option<CheckpointRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM agentflow_checkpoints c WHERE c.thread = $1
            AND c.id = coalesce($2, (SELECT t.head FROM agentflow_threads t WHERE t.id = $1))"
    );
    let [rows] = read.read([(&sql, args![thread, at])]).await?;
    Ok(with_states(read, thread, &rows).await?.pop())
}

/// Returns the checkpoints that the filter selects, the newest first.
pub(crate) async fn history(
    read: &mut impl Read,
    thread: &ThreadId,
    filter: &HistoryFilter,
) -> Result<Vec<CheckpointRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM agentflow_checkpoints c WHERE c.thread = $1 AND ($2::uuid IS NULL OR c.id < $2)
            AND ($3::uuid IS NULL OR c.run = $3) AND ($4::text IS NULL OR c.source = $4)
        ORDER BY c.id DESC LIMIT $5"
    );
    let arguments = args![thread, filter.before, filter.run, filter.source, limit(filter.limit)];
    let [rows] = read.read([(&sql, arguments)]).await?;
    with_states(read, thread, &rows).await
}

/// A checkpoint's state, as it is written.
struct Link {
    parent: Option<CheckpointId>,
    snapshot: Option<Bytes>,
    delta: Option<Bytes>,
}

/// Returns the checkpoints of the rows with their states. One that was pruned since the rows were read is left out.
async fn with_states(read: &mut impl Read, thread: &ThreadId, rows: &[Row]) -> Result<Vec<CheckpointRow>, StoreError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let operation = read.operation();
    let ids = rows.iter().map(|row| Columns::new(operation, row).get("id"));
    let ids = ids.collect::<Result<Vec<CheckpointId>, _>>()?;
    let mut states = states(read, thread, ids).await?;
    let mut checkpoints = Vec::with_capacity(rows.len());
    for row in rows {
        let columns = Columns::new(operation, row);
        let id = columns.get("id")?;
        if let Some(state) = states.remove(&id) {
            checkpoints.push(checkpoint(columns, id, state.into())?);
        }
    }
    Ok(checkpoints)
}

/// Returns the whole states of the checkpoints that are there.
pub(crate) async fn states(
    read: &mut impl Read,
    thread: &ThreadId,
    mut ids: Vec<CheckpointId>,
) -> Result<HashMap<CheckpointId, Vec<u8>>, StoreError> {
    let operation = read.operation();
    let sql = "WITH RECURSIVE chain (id) AS (
            SELECT asked.id FROM unnest($2::uuid[]) AS asked (id)
            UNION SELECT c.parent FROM chain JOIN agentflow_checkpoints c ON c.thread = $1 AND c.id = chain.id
                WHERE c.snapshot IS NULL AND c.parent IS NOT NULL)
        SELECT c.id, c.parent, c.snapshot, c.delta FROM chain
            JOIN agentflow_checkpoints c ON c.thread = $1 AND c.id = chain.id";
    let [rows] = read.read([(sql, args![thread, Array(ids.clone())])]).await?;
    let mut links = HashMap::with_capacity(rows.len());
    for row in &rows {
        let columns = Columns::new(operation, row);
        let (parent, snapshot, delta) = (columns.get("parent")?, columns.get("snapshot")?, columns.get("delta")?);
        links.insert(columns.get::<CheckpointId>("id")?, Link { parent, snapshot, delta });
    }
    // A parent has a lesser id than its children, so each state is folded from the nearest one that is known.
    ids.sort_unstable();
    let mut states: HashMap<CheckpointId, Vec<u8>> = HashMap::with_capacity(ids.len());
    for id in ids.into_iter().filter(|id| links.contains_key(id)) {
        let mut deltas = Vec::new();
        let mut at = id;
        let state = loop {
            if let Some(state) = states.get(&at) {
                break &state[..];
            }
            let missing = || error::corrupt(operation, error::Cause(format!("the checkpoint {at} is missing")));
            let link = links.get(&at).ok_or_else(missing)?;
            if let Some(snapshot) = &link.snapshot {
                break &snapshot[..];
            }
            deltas.extend(link.delta.as_deref());
            at = link.parent.ok_or_else(missing)?;
        };
        let state = if deltas.is_empty() {
            state.to_vec()
        } else {
            let corrupt = |error| error::corrupt(operation, error);
            fold(state, deltas.iter().rev().copied()).map_err(corrupt)?
        };
        states.insert(id, state);
    }
    Ok(states)
}

fn checkpoint(columns: Columns<'_>, id: CheckpointId, state: Stored) -> Result<CheckpointRow, StoreError> {
    let Array(next) = columns.get("next")?;
    let new = NewCheckpoint::new(columns.get("source")?, NewValues::Same, next, columns.get("position")?);
    let mut row = CheckpointRow::new(id, columns.get("step")?, new, state, columns.get("created")?);
    row.parent = columns.get("parent")?;
    row.run = columns.get("run")?;
    row.state_version = columns.get("state_version")?;
    row.writes = columns.get("writes")?;
    row.graph_hash = columns.get("graph_hash")?;
    row.delta_bytes = columns.get("delta_bytes")?;
    Ok(row)
}

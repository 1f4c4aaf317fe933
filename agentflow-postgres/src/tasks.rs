//! Durable tasks: how they are made, claimed, ended and listed.

use std::collections::{BTreeSet, HashMap, HashSet};

use agentflow::store::{
    Claim, Claimed, Enqueued, FinishTask, KeyPolicy, NewTask, OwnerId, POISON_CRASHES, ReleaseTask, StoreError,
    StoredTaskFilter, StoredTaskId, TaskChanged, TaskEnd, TaskKey, TaskRetention, TaskRow, TaskStatus, Timestamp,
    may_resume,
};
use tokio_postgres::Row;

use crate::{
    rows,
    rows::Columns,
    runs::NOTIFY,
    transaction::{Read, Session, Transaction},
    value::{Array, args, count, limit, one},
};

// ---- Making tasks.

pub(crate) async fn enqueue(session: Session, tasks: Vec<NewTask>) -> Result<Vec<Enqueued>, StoreError> {
    let operation = session.operation;
    let mut transaction = session.begin();
    let [now] = transaction.read([("SELECT agentflow_now() AS now", args![])]).await?;
    let made = insert_all(&mut transaction, &tasks, one(operation, &now, "now")?).await?;
    transaction.write(NOTIFY, args![]);
    transaction.commit().await?;
    Ok(made)
}

/// Makes tasks, in order.
pub(crate) async fn insert_all(
    transaction: &mut Transaction,
    tasks: &[NewTask],
    now: Timestamp,
) -> Result<Vec<Enqueued>, StoreError> {
    if tasks.is_empty() {
        return Ok(Vec::new());
    }
    let operation = transaction.operation();
    // Of two transactions that make tasks with the same key the second has to see the task of the first.
    let keys: BTreeSet<String> =
        tasks.iter().filter_map(|task| task.key.as_ref().map(|key| lock_name(task, key))).collect();
    if !keys.is_empty() {
        let names: Array<&str> = keys.iter().map(String::as_str).collect();
        transaction.write("SELECT agentflow_lock(name) FROM unnest($1::bytea[]) AS name", args![names]);
    }
    let ids: Array<StoredTaskId> = tasks.iter().map(|task| task.id).collect();
    let [known] = transaction.read([("SELECT id FROM agentflow_tasks WHERE id = ANY ($1)", args![ids])]).await?;
    let known = known.iter().map(|row| Columns::new(operation, row).get("id"));
    let mut known = known.collect::<Result<HashSet<StoredTaskId>, _>>()?;
    let mut outcomes = Vec::with_capacity(tasks.len());
    let mut batch = Vec::new();
    for task in tasks {
        if !known.insert(task.id) {
            outcomes.push(Enqueued::Known(task.id));
        } else if let Some(key) = &task.key {
            // The tasks before this one may have its key.
            insert(transaction, &batch, now);
            batch.clear();
            outcomes.push(insert_with_key(transaction, task, key, now).await?);
        } else {
            batch.push(task);
            outcomes.push(Enqueued::Made(task.id));
        }
    }
    insert(transaction, &batch, now);
    Ok(outcomes)
}

fn lock_name(task: &NewTask, key: &TaskKey) -> String {
    format!("key {:?} {:?} {:?}", task.name, key.scope, key.key)
}

fn insert(transaction: &mut Transaction, tasks: &[&NewTask], now: Timestamp) {
    if tasks.is_empty() {
        return;
    }
    macro_rules! column {
        (|$task:ident| $value:expr) => {
            tasks.iter().map(|$task| $value).collect::<Array<_>>()
        };
    }
    transaction.write(
        "INSERT INTO agentflow_tasks (id, name, args, policy, delay, asked_due, priority, key_scope, key, key_policy, run,
                node, schedule, due, created, updated)
            SELECT id, name, args, policy, delay, asked_due, priority, key_scope, key, key_policy, run, node, schedule, due,
                $15, $15
            FROM unnest($1::uuid[], $2::bytea[], $3::bytea[], $4::bytea[], $5::bigint[], $6::bigint[], $7::integer[],
                $8::bytea[], $9::bytea[], $10::text[], $11::uuid[], $12::bytea[], $13::bytea[], $14::bigint[])
                WITH ORDINALITY AS new (id, name, args, policy, delay, asked_due, priority, key_scope, key, key_policy, run,
                    node, schedule, due, number)
            ORDER BY number",
        args![
            column!(|task| task.id),
            column!(|task| &task.name),
            column!(|task| task.args.clone()),
            column!(|task| task.policy.clone()),
            column!(|task| task.delay),
            column!(|task| task.due),
            column!(|task| task.priority),
            column!(|task| task.key.as_ref().map(|key| &key.scope)),
            column!(|task| task.key.as_ref().map(|key| &key.key)),
            column!(|task| task.key.as_ref().map(|key| key.policy)),
            column!(|task| task.run),
            column!(|task| task.node.as_ref()),
            column!(|task| task.schedule.as_ref()),
            column!(|task| due(task, now)),
            now,
        ],
    );
}

/// Returns the time at which a new task is due.
fn due(task: &NewTask, now: Timestamp) -> Timestamp {
    task.due.unwrap_or_else(|| now.after(task.delay))
}

async fn insert_with_key(
    transaction: &mut Transaction,
    task: &NewTask,
    key: &TaskKey,
    now: Timestamp,
) -> Result<Enqueued, StoreError> {
    let operation = transaction.operation();
    if key.policy == KeyPolicy::Queue {
        insert(transaction, &[task], now);
        return Ok(Enqueued::Made(task.id));
    }
    // The lock on the rows keeps other transactions from claiming or ending them in between.
    let sql = "SELECT id, status FROM agentflow_tasks WHERE key = $1 AND key_scope = $2 AND name = $3
        AND status IN ('pending', 'running') ORDER BY sequence FOR UPDATE";
    let [rows] = transaction.read([(sql, args![&key.key, &key.scope, &task.name])]).await?;
    let unfinished = rows.iter().map(|row| {
        let columns = Columns::new(operation, row);
        Ok((columns.get::<StoredTaskId>("id")?, columns.get::<TaskStatus>("status")?))
    });
    let unfinished = unfinished.collect::<Result<Vec<_>, StoreError>>()?;
    if key.policy == KeyPolicy::Skip {
        if let Some((id, _)) = unfinished.first() {
            return Ok(Enqueued::Skipped(*id));
        }
        insert(transaction, &[task], now);
        return Ok(Enqueued::Made(task.id));
    }
    let running = unfinished.iter().filter(|(_, status)| *status == TaskStatus::Running);
    transaction.write(CANCEL, args![running.map(|(id, _)| *id).collect::<Array<_>>()]);
    let Some((id, _)) = unfinished.iter().rfind(|(_, status)| *status == TaskStatus::Pending) else {
        insert(transaction, &[task], now);
        return Ok(Enqueued::Made(task.id));
    };
    transaction.write(
        "UPDATE agentflow_tasks SET args = $2, policy = $3, delay = $4, asked_due = $5, priority = $6, key_policy = $7,
                run = $8, node = $9, schedule = $10, due = $11, failed_attempts = 0, crashes = 0, error = NULL,
                first_claimed = NULL, consumed = 0, cancel = false, updated = $12
            WHERE id = $1",
        args![
            *id,
            task.args.clone(),
            task.policy.clone(),
            task.delay,
            task.due,
            task.priority,
            key.policy,
            task.run,
            task.node.as_ref(),
            task.schedule.as_ref(),
            due(task, now),
            now,
        ],
    );
    Ok(Enqueued::Replaced(*id))
}

// ---- Claims.

/// Excludes the tasks that another task holds back: one with the same key that is running or was made earlier, or the one
/// of the last firing of their schedule.
macro_rules! unblocked {
    () => {
        "NOT EXISTS (SELECT FROM agentflow_tasks o WHERE o.key = t.key AND o.key_scope = t.key_scope AND o.name = t.name
                AND o.status IN ('pending', 'running') AND o.id <> t.id
                AND (o.status = 'running' OR o.sequence < t.sequence))
            AND NOT EXISTS (SELECT FROM agentflow_tasks o WHERE o.id = t.waits_for AND o.status IN ('pending', 'running'))"
    };
}

/// The time for which the owners of a task have had it: the dead one until it renewed its lease for the last time.
macro_rules! lived {
    () => {
        "consumed + CASE WHEN status = 'running' THEN greatest(0, coalesce(
            (SELECT o.renewed FROM agentflow_owners o WHERE o.id = t.owner) - consumed_at, 0)) ELSE 0 END"
    };
}

/// Claims what has caused no crashes, the tasks of each name up to its limit. Rows that another claim holds are left to it.
macro_rules! claim {
    ($of_name:literal, $of_all:literal) => {
        concat!(
            "WITH due AS MATERIALIZED (
                SELECT found.* FROM unnest($2::bytea[], $3::bigint[]) AS asked (name, room) CROSS JOIN LATERAL (
                    SELECT t.id, t.priority, t.due, t.sequence FROM agentflow_tasks t
                    WHERE t.name = asked.name AND t.status = 'pending' AND t.due <= (SELECT agentflow_now())
                        AND t.crashes < 2 AND ",
            unblocked!(),
            " ORDER BY ",
            $of_name,
            " LIMIT asked.room FOR UPDATE SKIP LOCKED) AS found),
            picked AS (SELECT due.id FROM due ORDER BY ",
            $of_all,
            " LIMIT $4)
            UPDATE agentflow_tasks t SET status = 'running', owner = $1, epoch = t.epoch + 1,
                first_claimed = coalesce(t.first_claimed, agentflow_now()), consumed_at = agentflow_now(),
                updated = agentflow_now()
            FROM picked WHERE t.id = picked.id RETURNING t.*"
        )
    };
}

const CLAIM_BY_PRIORITY: &str =
    claim!("t.priority DESC, t.due, t.sequence", "due.priority DESC, due.due, due.sequence");
const CLAIM_BY_DUE: &str = claim!("t.due, t.sequence", "due.due, due.sequence");

/// The tasks that were there at deaths of a process: those that dead owners left behind, and pending ones with crashes.
const CRASHED: &str = concat!(
    "SELECT t.*, NOT (",
    unblocked!(),
    ") AS is_blocked FROM agentflow_tasks t WHERE t.name = ANY ($1) AND (
        t.status = 'running' AND t.owner NOT IN (
            SELECT o.id FROM agentflow_owners o WHERE o.expires > (SELECT agentflow_now()))
        OR t.status = 'pending' AND t.crashes > 1 AND t.due <= (SELECT agentflow_now()))
    ORDER BY t.priority DESC, t.due, t.sequence FOR UPDATE SKIP LOCKED"
);

const HAS_CRASHED: &str = "SELECT EXISTS (SELECT FROM agentflow_tasks t WHERE t.name = ANY ($1) AND (
        t.status = 'pending' AND t.crashes > 1
        OR t.status = 'running' AND t.owner NOT IN (
            SELECT o.id FROM agentflow_owners o WHERE o.expires > (SELECT agentflow_now())))) AS has_crashed";

const NEXT_DUE: &str = concat!(
    "SELECT t.crashes, min(t.due) AS due FROM agentflow_tasks t WHERE t.name = ANY ($1) AND t.status = 'pending' AND ",
    unblocked!(),
    " GROUP BY t.crashes"
);

/// The crashes of the runs and tasks of living owners.
pub(crate) const CRASHES: &str = "SELECT crashes FROM (
        SELECT owner, crashes FROM agentflow_runs WHERE status = 'running' AND crashes > 1
        UNION ALL SELECT owner, crashes FROM agentflow_tasks WHERE status = 'running' AND crashes > 1) AS running
    WHERE owner IN (SELECT o.id FROM agentflow_owners o WHERE o.expires > (SELECT agentflow_now()))";

pub(crate) async fn claim(session: Session, claim: Claim) -> Result<Claimed, StoreError> {
    let operation = session.operation;
    let mut transaction = session.begin();
    let mut room: HashMap<&str, usize> = HashMap::new();
    for (name, limit) in claim.names.iter().filter(|(_, limit)| *limit > 0) {
        room.insert(name, *limit);
    }
    let mut claimed = Claimed::default();
    let [has_crashed] = transaction.read([(HAS_CRASHED, args![names(&room)])]).await?;
    if one(operation, &has_crashed, "has_crashed")? {
        claim_crashed(&mut transaction, &claim, &mut room, &mut claimed).await?;
    }
    room.retain(|_, limit| *limit > 0);
    let rooms: Array<i64> = room.values().map(|limit| count(*limit)).collect();
    let left = claim.limit.saturating_sub(claimed.tasks.len());
    let sql = if claim.oldest_first { CLAIM_BY_DUE } else { CLAIM_BY_PRIORITY };
    let [rows] = transaction.read([(sql, args![claim.owner, names(&room), rooms, count(left)])]).await?;
    let mut found = rows.iter().map(|row| Ok((sequence(operation, row)?, rows::task(operation, row)?)));
    let mut found = found.by_ref().collect::<Result<Vec<_>, StoreError>>()?;
    found.sort_by_key(|(sequence, task)| {
        let priority = if claim.oldest_first { 0 } else { task.task.priority };
        (std::cmp::Reverse(priority), task.due, *sequence)
    });
    for (_, task) in found {
        if let Some(limit) = room.get_mut(&*task.task.name) {
            *limit = limit.saturating_sub(1);
        }
        claimed.tasks.push(task);
    }
    room.retain(|_, limit| *limit > 0);
    let [next_due, running] = transaction.read([(NEXT_DUE, args![names(&room)]), (CRASHES, args![])]).await?;
    let running = crashes_of(operation, &running)?;
    for row in &next_due {
        let columns = Columns::new(operation, row);
        let crashes = columns.get("crashes")?;
        if may_resume(crashes, running.iter().filter(|other| **other >= crashes).count()) {
            let due = columns.get("due")?;
            claimed.next_due = Some(claimed.next_due.map_or(due, |earlier| earlier.min(due)));
        }
    }
    transaction.commit().await?;
    Ok(claimed)
}

/// Reads the rows of [`CRASHES`].
pub(crate) fn crashes_of(operation: &'static str, rows: &[Row]) -> Result<Vec<u32>, StoreError> {
    rows.iter().map(|row| Columns::new(operation, row).get("crashes")).collect()
}

fn names<'n>(room: &HashMap<&'n str, usize>) -> Array<&'n str> {
    room.keys().copied().collect()
}

fn sequence(operation: &'static str, row: &Row) -> Result<i64, StoreError> {
    Columns::new(operation, row).get("sequence")
}

/// Claims the tasks that were there at deaths of a process, as far as [`may_resume`] allows.
async fn claim_crashed(
    transaction: &mut Transaction,
    claim: &Claim,
    room: &mut HashMap<&str, usize>,
    claimed: &mut Claimed,
) -> Result<(), StoreError> {
    let operation = transaction.operation();
    // They are counted in the whole store, so such claims and takeovers go one after the other.
    transaction.write("SELECT agentflow_lock('take over')", args![]);
    let [candidates, running] = transaction.read([(CRASHED, args![names(room)]), (CRASHES, args![])]).await?;
    let mut running = crashes_of(operation, &running)?;
    let mut ids = Vec::new();
    for row in &candidates {
        let task = rows::task(operation, row)?;
        let is_running = task.status == TaskStatus::Running;
        let crashes = task.crashes + u32::from(is_running);
        if is_running && (task.cancel || crashes >= POISON_CRASHES) {
            let error = format!("the process died {crashes} times while it ran this task");
            let (status, error) =
                if task.cancel { (TaskStatus::Cancelled, None) } else { (TaskStatus::Failed, Some(error)) };
            if !task.cancel {
                claimed.parked.push(task.task.id);
            }
            transaction.write(
                concat!(
                    "UPDATE agentflow_tasks t SET status = $2, crashes = $3, error = coalesce($4, error), consumed = ",
                    lived!(),
                    ", owner = NULL, updated = agentflow_now() WHERE id = $1"
                ),
                args![task.task.id, status, crashes, error],
            );
            continue;
        }
        let others = running.iter().filter(|other| **other >= crashes).count();
        let Some(room) = room.get_mut(&*task.task.name).filter(|room| **room > 0) else { continue };
        let is_blocked: bool = Columns::new(operation, row).get("is_blocked")?;
        if ids.len() == claim.limit || is_blocked || !may_resume(crashes, others) {
            continue;
        }
        *room -= 1;
        running.push(crashes);
        ids.push(task.task.id);
        transaction.write(
            concat!(
                "UPDATE agentflow_tasks t SET status = 'running', owner = $2, epoch = epoch + 1, crashes = $3, consumed = ",
                lived!(),
                ", consumed_at = agentflow_now(), first_claimed = coalesce(first_claimed, agentflow_now()),
                    updated = agentflow_now() WHERE id = $1"
            ),
            args![task.task.id, claim.owner, crashes],
        );
    }
    let sql = "SELECT * FROM agentflow_tasks WHERE id = ANY ($1) ORDER BY sequence";
    let [rows] = transaction.read([(sql, args![Array(ids)])]).await?;
    for row in &rows {
        claimed.tasks.push(rows::task(operation, row)?);
    }
    Ok(())
}

// ---- The ends of attempts.

pub(crate) async fn finish(mut session: Session, finish: FinishTask) -> Result<(), StoreError> {
    let FinishTask { task, epoch, end, consumed, .. } = finish;
    let (status, error, delay, failed) = match end {
        TaskEnd::Done => (TaskStatus::Done, None, None, 0),
        TaskEnd::Failed { error } => (TaskStatus::Failed, Some(error), None, 1),
        TaskEnd::Retry { error, delay } => (TaskStatus::Pending, Some(error), Some(delay), 1),
        _ => (TaskStatus::Cancelled, None, None, 0),
    };
    let sql = "UPDATE agentflow_tasks SET
            status = CASE WHEN $3 = 'pending' AND cancel THEN 'cancelled' ELSE $3 END,
            error = CASE WHEN $3 = 'done' THEN NULL ELSE coalesce($4, error) END, due = coalesce(agentflow_after($5), due), failed_attempts = failed_attempts + $6,
            consumed = consumed + $7, crashes = 0, owner = NULL, updated = agentflow_now()
        WHERE id = $1 AND epoch = $2 AND status = 'running' RETURNING agentflow_notify()";
    let operation = session.operation;
    let arguments = args![task, epoch, status, error, delay, i64::from(failed), consumed];
    let [changed] = session.read([(sql, arguments)]).await?;
    if changed.is_empty() { Err(StoreError::fenced(operation)) } else { Ok(()) }
}

pub(crate) async fn release(mut session: Session, release: ReleaseTask) -> Result<(), StoreError> {
    let ReleaseTask { task, epoch, delay, consumed, .. } = release;
    let sql = "UPDATE agentflow_tasks SET status = CASE WHEN cancel THEN 'cancelled' ELSE 'pending' END,
            due = agentflow_after($3), consumed = consumed + $4, owner = NULL, updated = agentflow_now()
        WHERE id = $1 AND epoch = $2 AND status = 'running' RETURNING agentflow_notify()";
    let operation = session.operation;
    let [changed] = session.read([(sql, args![task, epoch, delay, consumed])]).await?;
    if changed.is_empty() { Err(StoreError::fenced(operation)) } else { Ok(()) }
}

// ---- Requests about one task.

/// Cancels unfinished tasks: a running one by a mark, if its owner is alive.
macro_rules! cancel {
    ($selected:literal) => {
        concat!(
            "UPDATE agentflow_tasks SET updated = agentflow_now(),
                status = CASE WHEN status = 'running' AND agentflow_is_alive(owner) THEN status ELSE 'cancelled' END,
                owner = CASE WHEN status = 'running' AND agentflow_is_alive(owner) THEN owner END,
                cancel = cancel OR status = 'running' AND agentflow_is_alive(owner)
            WHERE status IN ('pending', 'running') AND ",
            $selected
        )
    };
}

const CANCEL: &str = cancel!("id = ANY ($1)");
/// Cancels the unfinished tasks of a run.
pub(crate) const CANCEL_OF_RUN: &str = cancel!("run = $1");

/// Locks a task and returns its state.
async fn lock(
    transaction: &mut Transaction,
    task: StoredTaskId,
) -> Result<Option<(TaskStatus, Option<OwnerId>, bool)>, StoreError> {
    let operation = transaction.operation();
    let sql =
        "SELECT status, owner, agentflow_is_alive(owner) AS is_alive FROM agentflow_tasks WHERE id = $1 FOR UPDATE";
    let [row] = transaction.read([(sql, args![task])]).await?;
    let Some(row) = row.first() else { return Ok(None) };
    let columns = Columns::new(operation, row);
    Ok(Some((columns.get("status")?, columns.get("owner")?, columns.get("is_alive")?)))
}

pub(crate) async fn cancel(session: Session, task: StoredTaskId) -> Result<TaskChanged, StoreError> {
    const CANCEL_ONE: &str = cancel!("id = $1");
    let mut transaction = session.begin();
    let (sql, outcome) = match lock(&mut transaction, task).await? {
        None => ("", TaskChanged::NotFound),
        Some((TaskStatus::Running, Some(owner), true)) => (CANCEL_ONE, TaskChanged::Marked(owner)),
        Some((TaskStatus::Pending | TaskStatus::Running, ..)) => (CANCEL_ONE, TaskChanged::Yes),
        Some((status, ..)) => ("", TaskChanged::No(status)),
    };
    change(transaction, sql, task, outcome).await
}

pub(crate) async fn retry(session: Session, task: StoredTaskId) -> Result<TaskChanged, StoreError> {
    let mut transaction = session.begin();
    let (sql, outcome) = match lock(&mut transaction, task).await? {
        None => ("", TaskChanged::NotFound),
        Some((TaskStatus::Failed, ..)) => (
            "UPDATE agentflow_tasks SET status = 'pending', due = agentflow_now(), failed_attempts = 0, crashes = 0,
                cancel = false, first_claimed = NULL, consumed = 0, updated = agentflow_now() WHERE id = $1",
            TaskChanged::Yes,
        ),
        Some((status, ..)) => ("", TaskChanged::No(status)),
    };
    change(transaction, sql, task, outcome).await
}

pub(crate) async fn delete(session: Session, task: StoredTaskId) -> Result<TaskChanged, StoreError> {
    let mut transaction = session.begin();
    let (sql, outcome) = match lock(&mut transaction, task).await? {
        None => ("", TaskChanged::NotFound),
        Some((status, ..)) if status.has_ended() => ("DELETE FROM agentflow_tasks WHERE id = $1", TaskChanged::Yes),
        Some((status, ..)) => ("", TaskChanged::No(status)),
    };
    change(transaction, sql, task, outcome).await
}

async fn change(
    mut transaction: Transaction,
    sql: &'static str,
    task: StoredTaskId,
    outcome: TaskChanged,
) -> Result<TaskChanged, StoreError> {
    if sql.is_empty() {
        transaction.roll_back().await?;
        return Ok(outcome);
    }
    transaction.write(sql, args![task]);
    transaction.write(NOTIFY, args![]);
    transaction.commit().await?;
    Ok(outcome)
}

// ---- Lists.

pub(crate) async fn list(mut session: Session, filter: StoredTaskFilter) -> Result<Vec<TaskRow>, StoreError> {
    let operation = session.operation;
    let sql = "SELECT * FROM agentflow_tasks WHERE ($1::uuid[] IS NULL OR id = ANY ($1))
            AND ($2::bytea IS NULL OR name = $2) AND ($3::text IS NULL OR status = $3) AND ($4::uuid IS NULL OR run = $4)
            AND ($5::bytea IS NULL OR key = $5) AND ($6::uuid IS NULL OR owner = $6)
        ORDER BY sequence DESC OFFSET $7 LIMIT $8";
    let arguments = args![
        filter.ids.map(Array),
        filter.name.as_ref(),
        filter.status,
        filter.run,
        filter.key.as_ref(),
        filter.owner,
        count(filter.offset),
        limit(filter.limit),
    ];
    let [found] = session.read([(sql, arguments)]).await?;
    found.iter().map(|row| rows::task(operation, row)).collect()
}

pub(crate) async fn retain(mut session: Session, retention: TaskRetention) -> Result<usize, StoreError> {
    let sql = "DELETE FROM agentflow_tasks t USING (
            SELECT id, status = 'failed' AS failed, row_number() OVER (
                PARTITION BY name, status = 'failed' ORDER BY updated DESC, sequence DESC) AS number
            FROM agentflow_tasks WHERE status IN ('done', 'failed', 'cancelled')) AS ended
        WHERE t.id = ended.id AND t.status IN ('done', 'failed', 'cancelled')
            AND ended.number > CASE WHEN ended.failed THEN $2 ELSE $1 END
        RETURNING t.id";
    let [gone] = session.read([(sql, args![count(retention.ended), count(retention.failed)])]).await?;
    Ok(gone.len())
}

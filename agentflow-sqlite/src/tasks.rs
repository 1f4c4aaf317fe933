//! Durable tasks: making, ending, cancelling and listing them.

use std::sync::Arc;

use agentflow::{
    RunId,
    store::{
        Enqueued, FinishTask, KeyPolicy, NewTask, OwnerId, ReleaseTask, StoredTaskFilter, StoredTaskId, TaskChanged,
        TaskEnd, TaskKey, TaskRetention, TaskRow, TaskStatus,
    },
};
use rusqlite::{Row, params, params_from_iter, types::Value as SqlValue};

use crate::{
    checkpoints,
    failure::Failure,
    runs::owned,
    transaction::Transaction,
    value::{Sql, bytes, count, get, get_optional, optional},
};

const COLUMNS: &str = "id, name, status, owner, epoch, failed_attempts, crashes, due, priority, cancel, scope, key,
    key_policy, run, node, schedule, delay, given_due, error, first_claimed_at, consumed, created_at, updated_at, args, policy";

fn read(row: &Row<'_>) -> Result<TaskRow, Failure> {
    let name: String = row.get("name")?;
    let mut new = NewTask::new(get(row, "id")?, name, bytes(row, "args")?, bytes(row, "policy")?);
    new.delay = get(row, "delay")?;
    new.due = get_optional(row, "given_due")?;
    new.priority = row.get("priority")?;
    let (scope, key) = (row.get::<_, Option<String>>("scope")?, row.get::<_, Option<String>>("key")?);
    let policy = get_optional::<KeyPolicy>(row, "key_policy")?;
    new.key = scope.zip(key).map(|(scope, key)| TaskKey::new(scope, key, policy.unwrap_or_default()));
    new.run = get_optional(row, "run")?;
    new.node = row.get("node")?;
    new.schedule = row.get("schedule")?;

    let mut task = TaskRow::new(new, get(row, "created_at")?);
    task.status = get(row, "status")?;
    task.owner = get_optional(row, "owner")?;
    task.epoch = count(row, "epoch")?;
    task.failed_attempts = row.get("failed_attempts")?;
    task.crashes = row.get("crashes")?;
    task.due = get(row, "due")?;
    task.cancel = row.get("cancel")?;
    task.error = row.get("error")?;
    task.first_claimed_at = get_optional(row, "first_claimed_at")?;
    task.consumed = get(row, "consumed")?;
    task.updated_at = get(row, "updated_at")?;
    Ok(task)
}

pub(crate) fn list(tx: &Transaction<'_>, filter: &StoredTaskFilter) -> Result<Vec<TaskRow>, Failure> {
    let mut values: Vec<SqlValue> = Vec::new();
    let mut conditions = vec!["1".to_owned()];
    let mut add = |condition: &str, value: SqlValue| {
        values.push(value);
        conditions.push(format!("{condition} = ?{}", values.len()));
    };
    if let Some(name) = &filter.name {
        add("name", name.to_string().into());
    }
    if let Some(status) = filter.status {
        add("status", owned(&Sql(status))?);
    }
    if let Some(run) = filter.run {
        add("run", owned(&Sql(run))?);
    }
    if let Some(key) = &filter.key {
        add("key", key.to_string().into());
    }
    if let Some(owner) = filter.owner {
        // The owner of a task that has ended, or was released, is not the one that runs it.
        add("status", owned(&Sql(TaskStatus::Running))?);
        add("owner", owned(&Sql(owner))?);
    }
    if let Some(ids) = &filter.ids {
        // One parameter for all ids, because the number of parameters is limited.
        let ids: Vec<String> = ids.iter().map(|id| format!("{:032X}", id.as_u128())).collect();
        values.push(serde_json::to_string(&ids)?.into());
        conditions.push(format!("hex(id) IN (SELECT value FROM json_each(?{}))", values.len()));
    }
    let (conditions, limit) = (conditions.join(" AND "), checkpoints::limit(filter.limit));
    let sql = format!(
        "SELECT {COLUMNS} FROM tasks WHERE {conditions} ORDER BY sequence DESC LIMIT {limit} OFFSET {}",
        filter.offset
    );
    tx.all(&sql, params_from_iter(values), read)
}

pub(crate) fn by_sequence(tx: &Transaction<'_>, sequence: i64) -> Result<Option<TaskRow>, Failure> {
    tx.one(&format!("SELECT {COLUMNS} FROM tasks WHERE sequence = ?1"), [sequence], read)
}

/// The columns of a task that operations need.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) sequence: i64,
    pub(crate) id: StoredTaskId,
    pub(crate) status: TaskStatus,
    pub(crate) owner: Option<OwnerId>,
    pub(crate) epoch: u64,
    pub(crate) cancel: bool,
    pub(crate) key: Option<SharedKey>,
}

/// The key that tasks share of which one runs at a time.
#[derive(Debug)]
pub(crate) struct SharedKey {
    name: Arc<str>,
    scope: Arc<str>,
    key: Arc<str>,
}

impl SharedKey {
    /// Reads the key of a task that has one.
    pub(crate) fn read(row: &Row<'_>) -> Result<Option<Self>, Failure> {
        let (scope, key) = (row.get::<_, Option<Arc<str>>>("scope")?, row.get::<_, Option<Arc<str>>>("key")?);
        let name = row.get("name")?;
        Ok(scope.zip(key).map(|(scope, key)| Self { name, scope, key }))
    }

    fn of(task: &NewTask) -> Option<Self> {
        let TaskKey { scope, key, .. } = task.key.as_ref()?;
        Some(Self { name: task.name.clone(), scope: scope.clone(), key: key.clone() })
    }

    fn params(&self) -> [&str; 3] {
        [&self.name, &self.scope, &self.key]
    }
}

macro_rules! select_tasks {
    ($conditions:literal) => {
        concat!("SELECT sequence, id, status, owner, epoch, cancel, name, scope, key FROM tasks WHERE ", $conditions)
    };
}

/// A query for the unfinished tasks of a key.
macro_rules! with_key {
    ($rest:literal) => {
        concat!(
            "SELECT sequence, id, status, owner, epoch, cancel, name, scope, key FROM tasks ",
            "WHERE name = ?1 AND scope = ?2 AND key = ?3 AND key IS NOT NULL AND status IN ('pending', 'running') ",
            $rest
        )
    };
}

fn read_task(row: &Row<'_>) -> Result<Task, Failure> {
    Ok(Task {
        sequence: row.get(0)?,
        id: row.get::<_, Sql<_>>(1)?.0,
        status: row.get::<_, Sql<_>>(2)?.0,
        owner: row.get::<_, Option<Sql<_>>>(3)?.map(|owner| owner.0),
        epoch: row.get::<_, i64>(4)?.cast_unsigned(),
        cancel: row.get(5)?,
        key: SharedKey::read(row)?,
    })
}

fn find(tx: &Transaction<'_>, task: StoredTaskId) -> Result<Option<Task>, Failure> {
    tx.one(select_tasks!("id = ?1"), [Sql(task)], read_task)
}

pub(crate) fn is_unfinished(tx: &Transaction<'_>, task: StoredTaskId) -> Result<bool, Failure> {
    tx.exists("SELECT 1 FROM tasks WHERE id = ?1 AND status IN ('pending', 'running')", [Sql(task)])
}

// ---- Making tasks.

pub(crate) fn enqueue(tx: &Transaction<'_>, tasks: &[NewTask]) -> Result<Vec<Enqueued>, Failure> {
    tasks.iter().map(|task| enqueue_one(tx, task, None)).collect()
}

/// Makes a task that may wait for the end of another one.
pub(crate) fn enqueue_one(
    tx: &Transaction<'_>,
    task: &NewTask,
    waits_for: Option<StoredTaskId>,
) -> Result<Enqueued, Failure> {
    if tx.exists("SELECT 1 FROM tasks WHERE id = ?1", [Sql(task.id)])? {
        return Ok(Enqueued::Known(task.id));
    }
    let mut is_blocked = waits_for.map_or(Ok(false), |other| is_unfinished(tx, other))?;
    if let (Some(shared), Some(TaskKey { policy, .. })) = (SharedKey::of(task), &task.key) {
        match policy {
            KeyPolicy::Skip => {
                let other = tx.one(with_key!("ORDER BY sequence LIMIT 1"), shared.params(), read_task)?;
                if let Some(other) = other {
                    return Ok(Enqueued::Skipped(other.id));
                }
            }
            KeyPolicy::Replace => {
                for running in
                    tx.all(with_key!("AND is_blocked = 0 AND status = 'running'"), shared.params(), read_task)?
                {
                    cancel_task(tx, &running)?;
                }
                let newest = with_key!("AND status = 'pending' ORDER BY sequence DESC LIMIT 1");
                if let Some(pending) = tx.one(newest, shared.params(), read_task)? {
                    replace(tx, &pending, task)?;
                    return Ok(Enqueued::Replaced(pending.id));
                }
            }
            KeyPolicy::Queue => {}
            _ => return Err(Failure::unsupported("an unknown policy for keys")),
        }
        is_blocked |= tx.exists(with_key!("LIMIT 1"), shared.params())?;
    }
    let row = TaskRow::new(task.clone(), tx.now);
    let key = task.key.as_ref();
    tx.insert(
        "INSERT INTO tasks (id, name, status, is_blocked, waits_for, epoch, failed_attempts, crashes, due, priority, cancel,
             scope, key, key_policy, run, node, schedule, delay, given_due, consumed, created_at, updated_at, args, policy)
         VALUES (?1, ?2, 'pending', ?3, ?4, 0, 0, 0, ?5, ?6, 0, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, 0, ?15, ?15, ?16, ?17)",
        params![
            Sql(task.id),
            task.name,
            is_blocked,
            optional(waits_for),
            Sql(row.due),
            task.priority,
            key.map(|key| &key.scope),
            key.map(|key| &key.key),
            optional(key.map(|key| key.policy)),
            optional(task.run),
            task.node,
            task.schedule,
            Sql(task.delay),
            optional(task.due),
            Sql(tx.now),
            &task.args[..],
            &task.policy[..],
        ],
    )?;
    tx.notify();
    Ok(Enqueued::Made(task.id))
}

/// Gives a pending task all of a new one but its id.
fn replace(tx: &Transaction<'_>, pending: &Task, task: &NewTask) -> Result<(), Failure> {
    let row = TaskRow::new(task.clone(), tx.now);
    tx.execute(
        "UPDATE tasks SET name = ?2, failed_attempts = 0, crashes = 0, due = ?3, priority = ?4, key_policy = ?5, run = ?6,
             node = ?7, schedule = ?8, delay = ?9, given_due = ?10, error = NULL, first_claimed_at = NULL, consumed = 0,
             updated_at = ?11, args = ?12, policy = ?13
         WHERE sequence = ?1",
        params![
            pending.sequence,
            task.name,
            Sql(row.due),
            task.priority,
            optional(task.key.as_ref().map(|key| key.policy)),
            optional(task.run),
            task.node,
            task.schedule,
            Sql(task.delay),
            optional(task.due),
            Sql(tx.now),
            &task.args[..],
            &task.policy[..],
        ],
    )?;
    tx.notify();
    Ok(())
}

// ---- Keys.

/// Decides anew which task of a key may run: none beside a running one, else the one that was made first.
fn unblock_key(tx: &Transaction<'_>, key: &SharedKey) -> Result<(), Failure> {
    tx.execute(
        "UPDATE tasks SET is_blocked = 1
         WHERE name = ?1 AND scope = ?2 AND key = ?3 AND key IS NOT NULL AND status IN ('pending', 'running')
           AND is_blocked = 0 AND status = 'pending'",
        key.params(),
    )?;
    if tx.exists(with_key!("AND is_blocked = 0 AND status = 'running'"), key.params())? {
        return Ok(());
    }
    let first = tx.one(
        "SELECT sequence, waits_for FROM tasks
         WHERE name = ?1 AND scope = ?2 AND key = ?3 AND key IS NOT NULL AND status IN ('pending', 'running')
           AND is_blocked = 1
         ORDER BY sequence LIMIT 1",
        key.params(),
        |row| Ok((row.get::<_, i64>("sequence")?, get_optional::<StoredTaskId>(row, "waits_for")?)),
    )?;
    let Some((first, waits_for)) = first else { return Ok(()) };
    if !waits_for.map_or(Ok(false), |other| is_unfinished(tx, other))? {
        tx.execute("UPDATE tasks SET is_blocked = 0 WHERE sequence = ?1", [first])?;
        tx.notify();
    }
    Ok(())
}

/// Frees what waited for the end of a task. It is called after every change from or to a state that blocks others.
pub(crate) fn unblock_others(tx: &Transaction<'_>, task: StoredTaskId, key: Option<&SharedKey>) -> Result<(), Failure> {
    if let Some(key) = key {
        unblock_key(tx, key)?;
    }
    let waiting = tx.all(
        select_tasks!("waits_for = ?1 AND waits_for IS NOT NULL AND status = 'pending'"),
        [Sql(task)],
        read_task,
    )?;
    for other in waiting {
        let is_blocked = is_unfinished(tx, task)?;
        if let Some(key) = other.key {
            unblock_key(tx, &key)?;
        } else {
            tx.execute("UPDATE tasks SET is_blocked = ?2 WHERE sequence = ?1", params![other.sequence, is_blocked])?;
            tx.notify();
        }
    }
    Ok(())
}

// ---- Ends.

/// Returns a task that is running in this epoch.
fn live(tx: &Transaction<'_>, task: StoredTaskId, epoch: u64) -> Result<Task, Failure> {
    let live = find(tx, task)?.filter(|task| task.epoch == epoch && task.status == TaskStatus::Running);
    live.ok_or_else(Failure::fenced)
}

pub(crate) fn finish(tx: &Transaction<'_>, finish: &FinishTask) -> Result<(), Failure> {
    let task = live(tx, finish.task, finish.epoch)?;
    let (status, error, due) = match &finish.end {
        TaskEnd::Done => (TaskStatus::Done, None, None),
        TaskEnd::Failed { error } => (TaskStatus::Failed, Some(error), None),
        TaskEnd::Retry { error, delay } if task.cancel => {
            (TaskStatus::Cancelled, Some(error), Some(tx.now.after(*delay)))
        }
        TaskEnd::Retry { error, delay } => (TaskStatus::Pending, Some(error), Some(tx.now.after(*delay))),
        TaskEnd::Cancelled => (TaskStatus::Cancelled, None, None),
        _ => return Err(Failure::unsupported("an unknown end of a task")),
    };
    tx.execute(
        "UPDATE tasks SET status = ?2, error = CASE WHEN ?2 = 'cancelled' THEN coalesce(?3, error) ELSE ?3 END, failed_attempts = failed_attempts + (?3 IS NOT NULL),
             due = coalesce(?4, due), consumed = consumed + ?5, updated_at = ?6, owner = NULL
         WHERE sequence = ?1",
        params![task.sequence, Sql(status), error, optional(due), Sql(finish.consumed), Sql(tx.now)],
    )?;
    tx.execute("UPDATE tasks SET crashes = 0 WHERE sequence = ?1 AND crashes > 0", [task.sequence])?;
    ended(tx, &task)
}

/// Tells those who wait for a task that it is not running any more.
fn ended(tx: &Transaction<'_>, task: &Task) -> Result<(), Failure> {
    tx.notify();
    unblock_others(tx, task.id, task.key.as_ref())
}

pub(crate) fn release(tx: &Transaction<'_>, release: &ReleaseTask) -> Result<(), Failure> {
    let task = live(tx, release.task, release.epoch)?;
    let status = if task.cancel { TaskStatus::Cancelled } else { TaskStatus::Pending };
    tx.execute(
        "UPDATE tasks SET status = ?2, due = ?3, consumed = consumed + ?4, updated_at = ?5, owner = NULL
         WHERE sequence = ?1",
        params![task.sequence, Sql(status), Sql(tx.now.after(release.delay)), Sql(release.consumed), Sql(tx.now)],
    )?;
    ended(tx, &task)
}

pub(crate) fn cancel(tx: &Transaction<'_>, task: StoredTaskId) -> Result<TaskChanged, Failure> {
    match find(tx, task)? {
        Some(task) => cancel_task(tx, &task),
        None => Ok(TaskChanged::NotFound),
    }
}

fn cancel_task(tx: &Transaction<'_>, task: &Task) -> Result<TaskChanged, Failure> {
    if task.status.has_ended() {
        return Ok(TaskChanged::No(task.status));
    }
    tx.notify();
    if let Some(owner) = task.owner.filter(|_| task.status == TaskStatus::Running)
        && tx.is_alive(owner)?
    {
        tx.execute(
            "UPDATE tasks SET cancel = 1, updated_at = ?2 WHERE sequence = ?1",
            params![task.sequence, Sql(tx.now)],
        )?;
        return Ok(TaskChanged::Marked(owner));
    }
    tx.execute(
        "UPDATE tasks SET status = 'cancelled', owner = NULL, updated_at = ?2 WHERE sequence = ?1",
        params![task.sequence, Sql(tx.now)],
    )?;
    ended(tx, task)?;
    Ok(TaskChanged::Yes)
}

pub(crate) fn retry(tx: &Transaction<'_>, task: StoredTaskId) -> Result<TaskChanged, Failure> {
    let Some(task) = find(tx, task)? else { return Ok(TaskChanged::NotFound) };
    if task.status != TaskStatus::Failed {
        return Ok(TaskChanged::No(task.status));
    }
    tx.execute(
        "UPDATE tasks SET status = 'pending', is_blocked = 0, due = ?2, cancel = 0, failed_attempts = 0, crashes = 0,
             first_claimed_at = NULL, consumed = 0, updated_at = ?2
         WHERE sequence = ?1",
        params![task.sequence, Sql(tx.now)],
    )?;
    ended(tx, &task)?;
    Ok(TaskChanged::Yes)
}

pub(crate) fn delete(tx: &Transaction<'_>, task: StoredTaskId) -> Result<TaskChanged, Failure> {
    let Some(task) = find(tx, task)? else { return Ok(TaskChanged::NotFound) };
    if !task.status.has_ended() {
        return Ok(TaskChanged::No(task.status));
    }
    tx.execute("DELETE FROM tasks WHERE sequence = ?1", [task.sequence])?;
    Ok(TaskChanged::Yes)
}

pub(crate) fn retain(tx: &Transaction<'_>, retention: TaskRetention) -> Result<usize, Failure> {
    let mut deleted = 0;
    for (is_failed, kept) in [(false, retention.ended), (true, retention.failed)] {
        deleted += tx.execute(
            "DELETE FROM tasks WHERE sequence IN (
                 SELECT sequence FROM (
                     SELECT sequence,
                         row_number() OVER (PARTITION BY name ORDER BY updated_at DESC, sequence DESC) AS place
                     FROM tasks WHERE status NOT IN ('pending', 'running') AND (status = 'failed') = ?1)
                 WHERE place > ?2)",
            params![is_failed, i64::try_from(kept).unwrap_or(i64::MAX)],
        )?;
    }
    Ok(deleted)
}

/// Deletes the tasks of a run that have never been claimed, and cancels the others.
pub(crate) fn roll_back(tx: &Transaction<'_>, run: RunId) -> Result<(), Failure> {
    let unfinished = tx.all(
        select_tasks!("run = ?1 AND run IS NOT NULL AND status IN ('pending', 'running')"),
        [Sql(run)],
        read_task,
    )?;
    for task in unfinished {
        let deleted = tx.execute("DELETE FROM tasks WHERE sequence = ?1 AND epoch = 0", [task.sequence])?;
        if deleted == 0 {
            cancel_task(tx, &task)?;
        } else {
            ended(tx, &task)?;
        }
    }
    Ok(())
}

//! Claims of durable tasks.

use std::{cmp::Reverse, collections::HashMap, sync::Arc, time::Duration};

use agentflow::store::{Claim, Claimed, OwnerId, POISON_CRASHES, StoredTaskId, TaskRow, TaskStatus, Timestamp};
use rusqlite::{Row, params};

use crate::{
    checkpoints::limit,
    failure::Failure,
    owners,
    suspects::Suspects,
    tasks::{self, SharedKey},
    transaction::Transaction,
    value::{Sql, get, get_optional},
};

/// A task that could be claimed.
#[derive(Debug)]
struct Candidate {
    sequence: i64,
    id: StoredTaskId,
    name: Arc<str>,
    priority: i32,
    due: Timestamp,
    crashes: u32,
    /// The dead owner of a task that is running.
    owner: Option<OwnerId>,
    charged_at: Option<Timestamp>,
    cancel: bool,
    key: Option<SharedKey>,
}

macro_rules! select_candidates {
    ($conditions:literal) => {
        concat!(
            "SELECT sequence, id, name, priority, due, crashes, owner, charged_at, cancel, scope, key FROM tasks WHERE ",
            $conditions
        )
    };
}

fn read(row: &Row<'_>) -> Result<Candidate, Failure> {
    Ok(Candidate {
        sequence: row.get("sequence")?,
        id: get(row, "id")?,
        name: row.get("name")?,
        priority: row.get("priority")?,
        due: get(row, "due")?,
        crashes: row.get("crashes")?,
        owner: get_optional(row, "owner")?,
        charged_at: get_optional(row, "charged_at")?,
        cancel: row.get("cancel")?,
        key: SharedKey::read(row)?,
    })
}

/// The names that are claimed, each with the number of tasks that there is still room for.
type Room = HashMap<Arc<str>, usize>;

pub(crate) fn claim(tx: &Transaction<'_>, claim: &Claim) -> Result<Claimed, Failure> {
    let mut room: Room = claim.names.iter().cloned().collect();
    let mut claimed = Claimed::default();
    let mut candidates = abandoned(tx, &room, &mut claimed.parked)?;
    candidates.extend(due(tx, &room, claim.limit)?);
    candidates.sort_by_key(|task| {
        let priority = if claim.oldest_first { 0 } else { task.priority };
        (Reverse(priority), task.due, task.sequence)
    });
    let mut suspects = Suspects::of(tx)?;
    for candidate in candidates {
        if claimed.tasks.len() == claim.limit {
            break;
        }
        let Some(room) = room.get_mut(&candidate.name).filter(|room| **room > 0) else { continue };
        let crashes = candidate.crashes + u32::from(candidate.owner.is_some());
        if !suspects.may_resume(crashes) {
            continue;
        }
        suspects.add(crashes);
        *room -= 1;
        claimed.tasks.extend(take(tx, &candidate, crashes, claim.owner)?);
    }
    claimed.next_due = next_due(tx, &room, &suspects)?;
    Ok(claimed)
}

/// Returns the running tasks whose owners are dead. Those of which a cancel was requested, or that have been there at too
/// many deaths, end here.
fn abandoned(tx: &Transaction<'_>, room: &Room, parked: &mut Vec<StoredTaskId>) -> Result<Vec<Candidate>, Failure> {
    let owners = tx.all("SELECT DISTINCT owner FROM tasks WHERE status = 'running'", [], |row| {
        Ok(get_optional::<OwnerId>(row, "owner")?)
    })?;
    let mut found = Vec::new();
    for owner in owners.into_iter().flatten() {
        if !tx.is_alive(owner)? {
            found.extend(tx.all(select_candidates!("owner = ?1 AND status = 'running'"), [Sql(owner)], read)?);
        }
    }
    found.retain(|task| room.contains_key(&task.name));
    found.sort_by_key(|task| (Reverse(task.priority), task.due, task.sequence));
    let mut resumed = Vec::new();
    for task in found {
        let crashes = task.crashes + 1;
        if task.cancel {
            end(tx, &task, TaskStatus::Cancelled, crashes, None)?;
        } else if crashes >= POISON_CRASHES {
            let error = format!("the process died {crashes} times while it ran this task");
            end(tx, &task, TaskStatus::Failed, crashes, Some(&error))?;
            parked.push(task.id);
        } else {
            resumed.push(task);
        }
    }
    Ok(resumed)
}

fn end(
    tx: &Transaction<'_>,
    task: &Candidate,
    status: TaskStatus,
    crashes: u32,
    error: Option<&str>,
) -> Result<(), Failure> {
    tx.execute(
        "UPDATE tasks SET status = ?2, crashes = ?3, error = coalesce(?4, error), consumed = consumed + ?5, owner = NULL,
             updated_at = ?6
         WHERE sequence = ?1",
        params![task.sequence, Sql(status), crashes, error, Sql(charge(tx, task)?), Sql(tx.now)],
    )?;
    tx.notify();
    tasks::unblock_others(tx, task.id, task.key.as_ref())
}

/// Returns the time for which the dead owner of a task has lived since it claimed the task.
fn charge(tx: &Transaction<'_>, task: &Candidate) -> Result<Duration, Failure> {
    match (task.owner, task.charged_at) {
        (Some(owner), Some(since)) => owners::charge(tx, owner, since),
        _ => Ok(Duration::ZERO),
    }
}

/// Returns the pending tasks that are due, of each name and priority the oldest ones.
fn due(tx: &Transaction<'_>, room: &Room, most: usize) -> Result<Vec<Candidate>, Failure> {
    let mut found = Vec::new();
    for (name, room) in room {
        let wanted = limit(Some(most.min(*room)));
        if wanted == 0 {
            continue;
        }
        // Each priority is a range of the index, so that tasks that are due later cost nothing.
        for priority in priorities(tx, name)? {
            found.extend(tx.all(
                select_candidates!(
                    "name = ?1 AND priority = ?2 AND due <= ?3 AND status = 'pending' AND is_blocked = 0 AND crashes = 0
                     ORDER BY due, sequence LIMIT ?4"
                ),
                params![name, priority, Sql(tx.now), wanted],
                read,
            )?);
        }
    }
    found.extend(crashed(tx, room)?.into_iter().filter(|task| task.due <= tx.now));
    Ok(found)
}

/// Returns the pending tasks that have been there at deaths of a process. They are few, and are looked at one by one.
fn crashed(tx: &Transaction<'_>, room: &Room) -> Result<Vec<Candidate>, Failure> {
    let mut found = tx.all(select_candidates!("crashes > 0 AND status = 'pending' AND is_blocked = 0"), [], read)?;
    found.retain(|task| room.get(&task.name).is_some_and(|room| *room > 0));
    Ok(found)
}

/// Returns the priorities of the pending tasks of a name, the highest first.
fn priorities(tx: &Transaction<'_>, name: &str) -> Result<Vec<i32>, Failure> {
    let mut found = Vec::new();
    let mut below = i64::from(i32::MAX) + 1;
    loop {
        let next = tx.one(
            "SELECT priority FROM tasks WHERE name = ?1 AND priority < ?2 AND status = 'pending' AND is_blocked = 0
             ORDER BY priority DESC LIMIT 1",
            params![name, below],
            |row| Ok(row.get::<_, i32>("priority")?),
        )?;
        let Some(priority) = next else { return Ok(found) };
        found.push(priority);
        below = priority.into();
    }
}

/// Makes a task a running one of `owner`.
fn take(tx: &Transaction<'_>, task: &Candidate, crashes: u32, owner: OwnerId) -> Result<Option<TaskRow>, Failure> {
    let sequence = task.sequence;
    if crashes > task.crashes {
        // A statement of its own, because it changes an index.
        let charged = charge(tx, task)?;
        tx.execute(
            "UPDATE tasks SET crashes = ?2, consumed = consumed + ?3 WHERE sequence = ?1",
            params![sequence, crashes, Sql(charged)],
        )?;
    }
    tx.execute(
        "UPDATE tasks SET status = 'running', owner = ?2, epoch = epoch + 1, charged_at = ?3, updated_at = ?3,
             first_claimed_at = coalesce(first_claimed_at, ?3)
         WHERE sequence = ?1",
        params![sequence, Sql(owner), Sql(tx.now)],
    )?;
    tasks::by_sequence(tx, sequence)
}

/// Returns the time at which the next task is due that nothing but its time holds back.
fn next_due(tx: &Transaction<'_>, room: &Room, suspects: &Suspects) -> Result<Option<Timestamp>, Failure> {
    let mut next =
        crashed(tx, room)?.into_iter().filter(|task| suspects.may_resume(task.crashes)).map(|task| task.due).min();
    for (name, _) in room.iter().filter(|(_, room)| **room > 0) {
        for priority in priorities(tx, name)? {
            let due = tx.one(
                "SELECT due FROM tasks
                 WHERE name = ?1 AND priority = ?2 AND status = 'pending' AND is_blocked = 0 AND crashes = 0
                 ORDER BY due LIMIT 1",
                params![name, priority],
                |row| Ok(get(row, "due")?),
            )?;
            next = next.into_iter().chain(due).min();
        }
    }
    Ok(next)
}

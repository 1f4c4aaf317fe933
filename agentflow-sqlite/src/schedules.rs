//! Schedules.

use agentflow::store::{Enqueued, Fire, Fired, Overlap, ScheduleRow, StoredTaskId};
use rusqlite::{Row, params};

use crate::{
    failure::Failure,
    tasks,
    transaction::Transaction,
    value::{Sql, bytes, get, get_optional},
};

fn read(row: &Row<'_>) -> Result<ScheduleRow, Failure> {
    let (name, task): (String, String) = (row.get("name")?, row.get("task")?);
    let mut schedule = ScheduleRow::new(name, task, bytes(row, "definition")?, get(row, "next_due")?);
    schedule.last_task = get_optional(row, "last_task")?;
    Ok(schedule)
}

pub(crate) fn list(tx: &Transaction<'_>) -> Result<Vec<ScheduleRow>, Failure> {
    tx.all("SELECT name, task, definition, next_due, last_task FROM schedules ORDER BY name", [], read)
}

pub(crate) fn put(tx: &Transaction<'_>, schedule: &ScheduleRow) -> Result<(), Failure> {
    tx.execute(
        "INSERT INTO schedules (name, task, definition, next_due) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (name) DO UPDATE SET task = excluded.task, definition = excluded.definition,
             next_due = CASE WHEN definition = excluded.definition THEN next_due ELSE excluded.next_due END",
        params![schedule.name, schedule.task, &schedule.definition[..], Sql(schedule.next_due)],
    )?;
    tx.notify();
    Ok(())
}

pub(crate) fn delete(tx: &Transaction<'_>, name: &str) -> Result<bool, Failure> {
    Ok(tx.execute("DELETE FROM schedules WHERE name = ?1", [name])? > 0)
}

pub(crate) fn fire(tx: &Transaction<'_>, fire: &Fire) -> Result<Fired, Failure> {
    let last = tx.one(
        "SELECT last_task FROM schedules WHERE name = ?1 AND next_due = ?2",
        params![fire.schedule, Sql(fire.expected_due)],
        |row| Ok(get_optional::<StoredTaskId>(row, "last_task")?),
    )?;
    let Some(last) = last else { return Ok(Fired::NotDue) };
    tx.execute("UPDATE schedules SET next_due = ?2 WHERE name = ?1", params![fire.schedule, Sql(fire.next_due)])?;
    let unfinished = match last {
        Some(last) if tasks::is_unfinished(tx, last)? => Some(last),
        _ => None,
    };
    let waits_for = match fire.overlap {
        Overlap::Skip if unfinished.is_some() => return Ok(Fired::Skipped),
        Overlap::Skip | Overlap::Allow => None,
        Overlap::Queue => unfinished,
        _ => return Err(Failure::unsupported("an unknown policy for firings that overlap")),
    };
    let mut task = fire.task.clone();
    task.schedule = Some(fire.schedule.clone());
    let made = match tasks::enqueue_one(tx, &task, waits_for)? {
        Enqueued::Made(task) | Enqueued::Replaced(task) | Enqueued::Known(task) => task,
        Enqueued::Skipped(_) => return Ok(Fired::Skipped),
        _ => return Err(Failure::unsupported("an unknown outcome of making a task")),
    };
    tx.execute("UPDATE schedules SET last_task = ?2 WHERE name = ?1", params![fire.schedule, Sql(made)])?;
    Ok(Fired::Made(made))
}

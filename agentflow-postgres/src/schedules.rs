//! Schedules, and how they fire.

use agentflow::store::{Enqueued, Fire, Fired, Overlap, ScheduleRow, StoreError, StoredTaskId, TaskStatus, Timestamp};

use crate::{
    rows,
    rows::Columns,
    runs::NOTIFY,
    tasks,
    transaction::{Read, Session},
    value::{args, one},
};

pub(crate) async fn put(mut session: Session, schedule: ScheduleRow) -> Result<(), StoreError> {
    let sql = "INSERT INTO agentflow_schedules AS s (name, task, definition, next_due, last_task) VALUES ($1, $2, $3, $4, NULL)
        ON CONFLICT (name) DO UPDATE SET task = excluded.task, definition = excluded.definition,
            next_due = CASE WHEN s.definition = excluded.definition THEN s.next_due ELSE excluded.next_due END
        RETURNING agentflow_notify()";
    let ScheduleRow { name, task, definition, next_due, .. } = schedule;
    session.read([(sql, args![&name, &task, definition, next_due])]).await.map(|_| ())
}

pub(crate) async fn delete(mut session: Session, name: &str) -> Result<bool, StoreError> {
    let sql = "DELETE FROM agentflow_schedules WHERE name = $1 RETURNING name";
    let [gone] = session.read([(sql, args![name])]).await?;
    Ok(!gone.is_empty())
}

pub(crate) async fn list(mut session: Session) -> Result<Vec<ScheduleRow>, StoreError> {
    let [found] = session.read([("SELECT * FROM agentflow_schedules ORDER BY name", args![])]).await?;
    found.iter().map(|row| rows::schedule(session.operation, row)).collect()
}

pub(crate) async fn fire(session: Session, fire: Fire) -> Result<Fired, StoreError> {
    let operation = session.operation;
    let Fire { schedule, expected_due, next_due, mut task, overlap, .. } = fire;
    let mut transaction = session.begin();
    let sql = "SELECT next_due, last_task FROM agentflow_schedules WHERE name = $1 FOR UPDATE";
    let [row] = transaction.read([(sql, args![&schedule])]).await?;
    let due: Option<Timestamp> = row.first().map(|row| Columns::new(operation, row).get("next_due")).transpose()?;
    if due != Some(expected_due) {
        transaction.roll_back().await?;
        return Ok(Fired::NotDue);
    }
    let last: Option<StoredTaskId> = one(operation, &row, "last_task")?;
    let status = "SELECT status, agentflow_now() AS now FROM (SELECT) AS one LEFT JOIN agentflow_tasks ON id = $1";
    let [row] = transaction.read([(status, args![last])]).await?;
    let status: Option<TaskStatus> = one(operation, &row, "status")?;
    let now: Timestamp = one(operation, &row, "now")?;
    let is_unfinished = status.is_some_and(|status| !status.has_ended());
    transaction.write("UPDATE agentflow_schedules SET next_due = $2 WHERE name = $1", args![&schedule, next_due]);
    transaction.write(NOTIFY, args![]);
    if is_unfinished && overlap == Overlap::Skip {
        transaction.commit().await?;
        return Ok(Fired::Skipped);
    }
    task.schedule = Some(schedule.clone());
    let made = tasks::insert_all(&mut transaction, std::slice::from_ref(&task), now).await?;
    let Some(Enqueued::Made(id) | Enqueued::Replaced(id) | Enqueued::Known(id)) = made.first().cloned() else {
        transaction.commit().await?;
        return Ok(Fired::Skipped);
    };
    if is_unfinished && overlap == Overlap::Queue && last != Some(id) {
        transaction.write("UPDATE agentflow_tasks SET waits_for = $2 WHERE id = $1", args![id, last]);
    }
    transaction.write("UPDATE agentflow_schedules SET last_task = $2 WHERE name = $1", args![&schedule, id]);
    transaction.commit().await?;
    Ok(Fired::Made(id))
}

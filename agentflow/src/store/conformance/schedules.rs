//! Checks of schedules.

use std::time::Duration;

use super::{
    super::{
        Enqueued, FinishTask, Fire, Fired, KeyPolicy, NewTask, Overlap, ScheduleRow, StoredTaskFilter, TaskEnd,
        TaskKey, Timestamp,
    },
    check::list_checks,
    harness::{Checked, Harness, bytes, ensure, same, task},
};

list_checks![
    a_schedule_fires_once_for_each_due_time,
    a_firing_is_skipped_while_the_last_task_runs,
    a_firing_can_wait_for_the_last_task,
    firings_can_overlap,
    a_new_definition_sets_the_due_time_anew,
    a_schedule_is_deleted,
];

/// Returns a due time of the schedules.
fn due(n: i64) -> Timestamp {
    Timestamp::from_micros(n * 60_000_000)
}

async fn put(h: &Harness<'_>) -> Checked {
    Ok(h.a.store.put_schedule(ScheduleRow::new("s", "job", bytes("{}"), due(1))).await?)
}

fn fire(n: i64, task: &NewTask, overlap: Overlap) -> Fire {
    let mut fire = Fire::new("s".into(), due(n), due(n + 1), task.clone());
    fire.overlap = overlap;
    fire
}

async fn a_schedule_fires_once_for_each_due_time(h: &mut Harness<'_>) -> Checked {
    put(h).await?;
    let (first, second) = (task("job"), task("job"));
    same("the first", h.a.store.fire(fire(1, &first, Overlap::Skip)).await?, Fired::Made(first.id))?;
    same("the same due time", h.b.store.fire(fire(1, &second, Overlap::Skip)).await?, Fired::NotDue)?;
    same("a later due time", h.b.store.fire(fire(3, &second, Overlap::Skip)).await?, Fired::NotDue)?;
    same("the number of tasks", h.b.store.tasks(StoredTaskFilter::default()).await?.len(), 1)?;
    same("the schedule of the task", h.b.task(first.id).await?.task.schedule.as_deref(), Some("s"))?;
    let rows = h.b.store.schedules().await?;
    let row = rows.first().ok_or("the schedule is not there")?;
    same("the next due time and the last task", (row.next_due, row.last_task), (due(2), Some(first.id)))
}

async fn a_firing_is_skipped_while_the_last_task_runs(h: &mut Harness<'_>) -> Checked {
    put(h).await?;
    let (first, second, third) = (task("job"), task("job"), task("job"));
    h.a.store.fire(fire(1, &first, Overlap::Skip)).await?;
    same("beside a pending one", h.b.store.fire(fire(2, &second, Overlap::Skip)).await?, Fired::Skipped)?;
    same("the claimed tasks", h.a.claim_ids("job", 9).await?, vec![first.id])?;
    same("beside a running one", h.b.store.fire(fire(3, &second, Overlap::Skip)).await?, Fired::Skipped)?;
    h.a.store.finish_task(FinishTask::new(first.id, 1, TaskEnd::Done)).await?;
    same("after its end", h.b.store.fire(fire(4, &third, Overlap::Skip)).await?, Fired::Made(third.id))?;
    let mut keyed = task("job");
    keyed.key = Some(TaskKey::new("job", "k", KeyPolicy::Skip));
    same("a task with a key", h.a.store.enqueue(vec![keyed.clone()]).await?, vec![Enqueued::Made(keyed.id)])?;
    keyed.id = super::super::StoredTaskId::new();
    same("a key in use", h.b.store.fire(fire(5, &keyed, Overlap::Allow)).await?, Fired::Skipped)?;
    same("the due time", h.b.store.schedules().await?.first().map(|row| row.next_due), Some(due(6)))
}

async fn a_firing_can_wait_for_the_last_task(h: &mut Harness<'_>) -> Checked {
    put(h).await?;
    let tasks = [task("job"), task("job"), task("job")];
    for (n, task) in (1..).zip(&tasks) {
        same("the answer", h.b.store.fire(fire(n, task, Overlap::Queue)).await?, Fired::Made(task.id))?;
    }
    for task in &tasks {
        same("the claimed one", h.a.claim_ids("job", 9).await?, vec![task.id])?;
        same("a claim beside it", h.b.claim_ids("job", 9).await?, Vec::new())?;
        h.a.store.finish_task(FinishTask::new(task.id, 1, TaskEnd::Done)).await?;
    }
    Ok(())
}

async fn firings_can_overlap(h: &mut Harness<'_>) -> Checked {
    put(h).await?;
    for n in 1..=3 {
        h.a.store.fire(fire(n, &task("job"), Overlap::Allow)).await?;
    }
    same("the number of claimed tasks", h.b.claim_ids("job", 9).await?.len(), 3)
}

async fn a_new_definition_sets_the_due_time_anew(h: &mut Harness<'_>) -> Checked {
    put(h).await?;
    let first = task("job");
    h.a.store.fire(fire(1, &first, Overlap::Skip)).await?;
    put(h).await?;
    let row = async || -> Checked<ScheduleRow> {
        h.b.store.schedules().await?.into_iter().next().ok_or_else(|| "the schedule is not there".into())
    };
    same("the same definition", (row().await?.next_due, row().await?.last_task), (due(2), Some(first.id)))?;
    h.a.store.put_schedule(ScheduleRow::new("s", "job", bytes(r#"{"at":9}"#), due(9))).await?;
    same("another definition", (row().await?.next_due, row().await?.last_task), (due(9), Some(first.id)))?;
    same("its text", row().await?.definition, bytes(r#"{"at":9}"#))
}

async fn a_schedule_is_deleted(h: &mut Harness<'_>) -> Checked {
    put(h).await?;
    h.a.store.put_schedule(ScheduleRow::new("a", "other", bytes("{}"), due(1))).await?;
    let rows = h.b.store.schedules().await?;
    same("the schedules", rows.iter().map(|row| &*row.name).collect(), vec!["a", "s"])?;
    ensure(h.b.store.delete_schedule("s").await?, "the schedule was not there")?;
    ensure(!h.a.store.delete_schedule("s").await?, "the schedule was deleted twice")?;
    same("a firing", h.a.store.fire(fire(1, &task("job"), Overlap::Skip)).await?, Fired::NotDue)?;
    h.advance(Duration::from_secs(1)).await?;
    same("the number of tasks", h.a.store.tasks(StoredTaskFilter::default()).await?.len(), 0)
}

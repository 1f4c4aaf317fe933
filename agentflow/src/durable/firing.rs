//! [`Firing`]: the worker's part in schedules, which makes their tasks.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    graph::app::App,
    panics::catch_panic,
    session::{POLL, Session},
    state::State,
    store::{Fire, Fired, NewTask, ScheduleRow, StoreError, StoredTaskId, Timestamp},
    task::RegisteredSchedule,
};

/// The worker's last look at the schedules.
#[derive(Debug, Default)]
pub(super) struct Firing {
    looked: Option<Instant>,
    /// The time from the last look to the next firing.
    wait: Duration,
    /// The number of schedules at the last look.
    count: usize,
}

impl Firing {
    /// Fires the schedules of this app that are due. Returns the time until the next one is, or until it is time to look again.
    pub(super) async fn fire_due<S: State, C>(
        &mut self,
        app: &App<S, C>,
        session: &Session,
    ) -> Result<Duration, StoreError> {
        let registered = app.worker.schedules.lock().clone();
        if registered.is_empty() {
            return Ok(POLL);
        }
        let since_look = self.looked.map(|looked| looked.elapsed());
        if let Some(left) = since_look.and_then(|since| self.wait.checked_sub(since))
            && !left.is_zero()
            && self.count == registered.len()
        {
            return Ok(left);
        }
        let mut next = POLL;
        let now = session.store.now().await?;
        for row in session.store.schedules().await? {
            let Some(schedule) = registered.get(&row.name) else { continue };
            let next_due = if row.next_due <= now { fire(session, schedule, &row, now).await? } else { row.next_due };
            next = next.min(next_due.since(now));
        }
        *self = Self { looked: Some(Instant::now()), wait: next, count: registered.len() };
        Ok(next)
    }
}

/// Fires a schedule that is due, for the latest time that was missed. Returns the next due time.
async fn fire(
    session: &Session,
    schedule: &RegisteredSchedule,
    row: &ScheduleRow,
    now: Timestamp,
) -> Result<Timestamp, StoreError> {
    let calendar = &schedule.calendar;
    let due = calendar.latest_missed(row.next_due.into(), now.into()).map_or(row.next_due, Timestamp::from);
    let next_due = calendar.next_after(now.into()).map_or(Timestamp::from_micros(i64::MAX), Timestamp::from);
    let mut task = NewTask::new(StoredTaskId::new(), schedule.task, schedule.args.clone(), schedule.policy.clone());
    task.due = Some(due);
    let mut fire = Fire::new(Arc::clone(&row.name), row.next_due, next_due, task);
    fire.overlap = schedule.overlap;
    if let Fired::Skipped = session.store.fire(fire).await? {
        let name = &*row.name;
        catch_panic(|| tracing::info!(schedule = name, "a firing is left out: the task of the last one has not ended"));
    }
    // If another process has fired it, the due time is this one too, as far as the clocks agree.
    Ok(next_due)
}

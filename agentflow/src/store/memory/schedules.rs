//! [`Schedules`]: the schedules of a store.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    super::{
        task::{Enqueued, Fire, Fired, Overlap, ScheduleRow},
        value::Timestamp,
    },
    owners::Owners,
    tasks::Tasks,
};

/// The schedules, by name.
#[derive(Debug, Default)]
pub(super) struct Schedules(pub(super) BTreeMap<Arc<str>, ScheduleRow>);

impl Schedules {
    pub(super) fn put(&mut self, new: &ScheduleRow) {
        let mut row = new.clone();
        let former = self.0.get(&new.name);
        row.last_task = former.and_then(|former| former.last_task);
        if let Some(former) = former.filter(|former| former.definition == new.definition) {
            row.next_due = former.next_due;
        }
        self.0.insert(new.name.clone(), row);
    }

    /// Fires a schedule: makes its task, and moves its due time on.
    pub(super) fn fire(&mut self, fire: &Fire, tasks: &mut Tasks, owners: &Owners, now: Timestamp) -> Fired {
        let Some(schedule) = self.0.get_mut(&fire.schedule) else { return Fired::NotDue };
        if schedule.next_due != fire.expected_due {
            return Fired::NotDue;
        }
        schedule.next_due = fire.next_due;
        let unfinished = schedule.last_task.filter(|last| tasks.is_unfinished(*last));
        let follows = match fire.overlap {
            Overlap::Skip if unfinished.is_some() => return Fired::Skipped,
            Overlap::Queue => unfinished,
            Overlap::Skip | Overlap::Allow => None,
        };
        let mut task = fire.task.clone();
        task.schedule = Some(fire.schedule.clone());
        match tasks.enqueue_one(&task, follows, owners, now) {
            Enqueued::Made(id) | Enqueued::Replaced(id) | Enqueued::Known(id) => {
                schedule.last_task = Some(id);
                Fired::Made(id)
            }
            Enqueued::Skipped(_) => Fired::Skipped,
        }
    }
}

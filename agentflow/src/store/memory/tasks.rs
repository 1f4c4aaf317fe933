//! [`Tasks`]: the durable tasks of a store.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use super::{
    super::{
        error::StoreError,
        id::StoredTaskId,
        run::POISON_CRASHES,
        task::{
            Claim, Claimed, Enqueued, FinishTask, KeyPolicy, NewTask, ReleaseTask, StoredTaskFilter, TaskChanged,
            TaskEnd, TaskRetention, TaskRow, TaskStatus,
        },
        value::Timestamp,
    },
    owners::Owners,
    suspects::Suspects,
};
use crate::run_id::RunId;

/// The name, the scope and the key that tasks share.
type SharedKey = (Arc<str>, Arc<str>, Arc<str>);

/// A durable task.
#[derive(Debug)]
struct Task {
    row: TaskRow,
    /// The task of the schedule's last firing, which has to end first.
    follows: Option<StoredTaskId>,
    claimed_at: Timestamp,
}

/// The durable tasks, by their place in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    rows: BTreeMap<u64, Task>,
    places: HashMap<StoredTaskId, u64>,
    unfinished: BTreeSet<u64>,
    /// The unfinished tasks of each key.
    keys: HashMap<SharedKey, BTreeSet<u64>>,
    last: u64,
}

impl Tasks {
    pub(super) fn enqueue(&mut self, new: &[NewTask], owners: &Owners, now: Timestamp) -> Vec<Enqueued> {
        new.iter().map(|new| self.enqueue_one(new, None, owners, now)).collect()
    }

    /// Makes a task, unless its key is in use. It is not claimed before the task that it `follows` has ended.
    pub(super) fn enqueue_one(
        &mut self,
        new: &NewTask,
        follows: Option<StoredTaskId>,
        owners: &Owners,
        now: Timestamp,
    ) -> Enqueued {
        if self.places.contains_key(&new.id) {
            return Enqueued::Known(new.id);
        }
        if let (Some(key), Some(policy)) = (shared_key(new), new.key.as_ref().map(|key| key.policy)) {
            let others: Vec<u64> = self.keys.get(&key).into_iter().flatten().copied().collect();
            match policy {
                KeyPolicy::Skip => {
                    if let Some(other) = others.first().and_then(|place| self.rows.get(place)) {
                        return Enqueued::Skipped(other.row.task.id);
                    }
                }
                KeyPolicy::Replace => {
                    if let Some(replaced) = self.replace(new, &others, owners, now) {
                        return Enqueued::Replaced(replaced);
                    }
                }
                KeyPolicy::Queue => {}
            }
        }
        self.last += 1;
        let task = Task { row: TaskRow::new(new.clone(), now), follows, claimed_at: now };
        self.places.insert(new.id, self.last);
        self.rows.insert(self.last, task);
        self.index(self.last);
        Enqueued::Made(new.id)
    }

    /// Requests a cancel of the running ones of the tasks with a key, and gives the newest pending one the new arguments.
    fn replace(&mut self, new: &NewTask, others: &[u64], owners: &Owners, now: Timestamp) -> Option<StoredTaskId> {
        let mut pending = None;
        for place in others {
            let Some(Task { row, .. }) = self.rows.get(place) else { continue };
            match row.status {
                TaskStatus::Running => {
                    let id = row.task.id;
                    self.cancel(id, owners, now);
                }
                _ => pending = Some(*place),
            }
        }
        let Task { row, .. } = self.rows.get_mut(&pending?)?;
        let id = row.task.id;
        let mut fresh = TaskRow::new(NewTask { id, ..new.clone() }, now);
        fresh.epoch = row.epoch;
        fresh.created_at = row.created_at;
        *row = fresh;
        Some(id)
    }

    pub(super) fn claim(&mut self, claim: &Claim, mut suspects: Suspects, owners: &Owners, now: Timestamp) -> Claimed {
        let mut claimed = Claimed::default();
        let mut room: HashMap<&str, usize> = claim.names.iter().map(|(name, room)| (&**name, *room)).collect();
        for place in self.candidates(claim, owners, now) {
            let Some(Task { row, claimed_at, .. }) = self.rows.get(&place) else { continue };
            let is_dead = row.status == TaskStatus::Running;
            let crashes = row.crashes + u32::from(is_dead);
            let lived = row.owner.map_or(Duration::ZERO, |owner| owners.lived_since(owner, *claimed_at));
            if is_dead && (row.cancel || crashes >= POISON_CRASHES) {
                let (status, id) =
                    if row.cancel { (TaskStatus::Cancelled, None) } else { (TaskStatus::Failed, Some(row.task.id)) };
                claimed.parked.extend(id);
                self.change(place, now, |row| {
                    row.status = status;
                    row.crashes = crashes;
                    row.consumed += lived;
                    if id.is_some() {
                        row.error = Some(format!("the process died {crashes} times while it ran this task"));
                    }
                });
                continue;
            }
            let Some(room) = room.get_mut(&*row.task.name).filter(|room| **room > 0) else { continue };
            let is_full = claimed.tasks.len() == claim.limit;
            if is_full || self.is_blocked(place) || !suspects.may_resume(crashes) {
                continue;
            }
            *room -= 1;
            suspects.add(crashes);
            let Some(task) = self.rows.get_mut(&place) else { continue };
            let row = &mut task.row;
            task.claimed_at = now;
            row.status = TaskStatus::Running;
            row.owner = Some(claim.owner);
            row.epoch += 1;
            row.crashes = crashes;
            row.consumed += lived;
            row.first_claimed_at.get_or_insert(now);
            row.updated_at = now;
            claimed.tasks.push(row.clone());
        }
        let waiting = self.unfinished.iter().filter_map(|place| Some((*place, &self.rows.get(place)?.row)));
        claimed.next_due = waiting
            .filter(|(place, row)| {
                row.status == TaskStatus::Pending
                    && room.get(&*row.task.name).is_some_and(|room| *room > 0)
                    && suspects.may_resume(row.crashes)
                    && !self.is_blocked(*place)
            })
            .map(|(_, row)| row.due)
            .min();
        claimed
    }

    /// Returns the tasks that a claim may take, the first one first.
    fn candidates(&self, claim: &Claim, owners: &Owners, now: Timestamp) -> Vec<u64> {
        let mut candidates: Vec<(Reverse<i32>, Timestamp, u64)> = self
            .unfinished
            .iter()
            .filter_map(|place| Some((*place, &self.rows.get(place)?.row)))
            .filter(|(_, row)| {
                let is_due = match row.owner {
                    Some(owner) => !owners.is_alive(owner, now),
                    None => row.due <= now,
                };
                is_due && claim.names.iter().any(|(name, _)| *name == row.task.name)
            })
            .map(|(place, row)| (Reverse(if claim.oldest_first { 0 } else { row.task.priority }), row.due, place))
            .collect();
        candidates.sort_unstable();
        candidates.into_iter().map(|(_, _, place)| place).collect()
    }

    /// Returns whether a task has to wait until another one has ended.
    fn is_blocked(&self, place: u64) -> bool {
        let Some(task) = self.rows.get(&place) else { return false };
        let follows = task.follows.and_then(|id| self.places.get(&id));
        follows.is_some_and(|place| self.unfinished.contains(place))
            || shared_key(&task.row.task).and_then(|key| self.keys.get(&key)).is_some_and(|others| {
                others.iter().any(|other| {
                    *other < place
                        || (*other != place
                            && self.rows.get(other).is_some_and(|other| other.row.status == TaskStatus::Running))
                })
            })
    }

    pub(super) fn finish(&mut self, finish: &FinishTask, now: Timestamp) -> Result<(), StoreError> {
        let place = self.live(finish.task, finish.epoch, "finish_task")?;
        self.change(place, now, |row| {
            row.crashes = 0;
            row.consumed += finish.consumed;
            let (status, error) = match &finish.end {
                TaskEnd::Done => (TaskStatus::Done, None),
                TaskEnd::Cancelled => (TaskStatus::Cancelled, row.error.take()),
                TaskEnd::Failed { error } => (TaskStatus::Failed, Some(error.clone())),
                TaskEnd::Retry { error, delay } => {
                    row.due = now.after(*delay);
                    (again(row), Some(error.clone()))
                }
            };
            row.failed_attempts += u32::from(matches!(finish.end, TaskEnd::Failed { .. } | TaskEnd::Retry { .. }));
            row.status = status;
            row.error = error;
        });
        Ok(())
    }

    pub(super) fn release(&mut self, release: &ReleaseTask, now: Timestamp) -> Result<(), StoreError> {
        let place = self.live(release.task, release.epoch, "release_task")?;
        self.change(place, now, |row| {
            row.status = again(row);
            row.due = now.after(release.delay);
            row.consumed += release.consumed;
        });
        Ok(())
    }

    pub(super) fn cancel(&mut self, id: StoredTaskId, owners: &Owners, now: Timestamp) -> TaskChanged {
        let Some((place, task)) = self.get(id) else { return TaskChanged::NotFound };
        let row = &task.row;
        match (row.status, row.owner) {
            (TaskStatus::Running, Some(owner)) if owners.is_alive(owner, now) => {
                self.change(place, now, |row| row.cancel = true);
                TaskChanged::Marked(owner)
            }
            (TaskStatus::Pending | TaskStatus::Running, _) => {
                self.change(place, now, |row| row.status = TaskStatus::Cancelled);
                TaskChanged::Yes
            }
            (status, _) => TaskChanged::No(status),
        }
    }

    pub(super) fn retry(&mut self, id: StoredTaskId, now: Timestamp) -> TaskChanged {
        let Some((place, task)) = self.get(id) else { return TaskChanged::NotFound };
        if task.row.status != TaskStatus::Failed {
            return TaskChanged::No(task.row.status);
        }
        self.change(place, now, |row| {
            row.status = TaskStatus::Pending;
            row.failed_attempts = 0;
            row.crashes = 0;
            row.due = now;
            row.cancel = false;
            row.first_claimed_at = None;
            row.consumed = Duration::ZERO;
        });
        TaskChanged::Yes
    }

    pub(super) fn delete(&mut self, id: StoredTaskId) -> TaskChanged {
        let Some((place, task)) = self.get(id) else { return TaskChanged::NotFound };
        if !task.row.status.has_ended() {
            return TaskChanged::No(task.row.status);
        }
        self.remove(place);
        TaskChanged::Yes
    }

    pub(super) fn list(&self, filter: &StoredTaskFilter) -> Vec<TaskRow> {
        let is_selected = |row: &&TaskRow| {
            let task = &row.task;
            filter.ids.as_ref().is_none_or(|ids| ids.contains(&task.id))
                && filter.name.as_ref().is_none_or(|name| *name == task.name)
                && filter.status.is_none_or(|status| status == row.status)
                && filter.run.is_none_or(|run| task.run == Some(run))
                && filter.key.as_ref().is_none_or(|key| task.key.as_ref().is_some_and(|of| of.key == *key))
                && filter.owner.is_none_or(|owner| row.owner == Some(owner))
        };
        let rows = self.rows.values().rev().map(|task| &task.row).filter(is_selected);
        rows.skip(filter.offset).take(filter.limit.unwrap_or(usize::MAX)).cloned().collect()
    }

    /// Removes the tasks that ended first, of each name, beyond the limits.
    pub(super) fn retain(&mut self, retention: TaskRetention) -> usize {
        let mut ended: HashMap<_, Vec<_>> = HashMap::new();
        for (place, Task { row, .. }) in self.rows.iter().filter(|(_, task)| task.row.status.has_ended()) {
            let kind = (row.task.name.clone(), row.status == TaskStatus::Failed);
            ended.entry(kind).or_default().push((row.updated_at, *place));
        }
        let mut count = 0;
        for ((_, has_failed), mut tasks) in ended {
            let limit = if has_failed { retention.failed } else { retention.ended };
            tasks.sort_unstable();
            tasks.truncate(tasks.len().saturating_sub(limit));
            count += tasks.len();
            for (_, place) in tasks {
                self.remove(place);
            }
        }
        count
    }

    /// Deletes the tasks of a run that have never been claimed, and cancels the others.
    pub(super) fn roll_back(&mut self, run: RunId, owners: &Owners, now: Timestamp) {
        let of_run = |place: &&u64| self.rows.get(place).is_some_and(|task| task.row.task.run == Some(run));
        let places: Vec<u64> = self.unfinished.iter().filter(of_run).copied().collect();
        for place in places {
            let Some(Task { row, .. }) = self.rows.get(&place) else { continue };
            if row.epoch == 0 {
                self.remove(place);
            } else {
                let id = row.task.id;
                self.cancel(id, owners, now);
            }
        }
    }

    pub(super) fn is_unfinished(&self, id: StoredTaskId) -> bool {
        self.places.get(&id).is_some_and(|place| self.unfinished.contains(place))
    }

    /// Returns the crashes of the tasks that living owners run.
    pub(super) fn crashes_of_running(&self, owners: &Owners, now: Timestamp) -> impl Iterator<Item = u32> {
        let unfinished = self.unfinished.iter().filter_map(|place| self.rows.get(place));
        let is_running = move |task: &&Task| task.row.owner.is_some_and(|owner| owners.is_alive(owner, now));
        unfinished.filter(is_running).map(|task| task.row.crashes)
    }

    fn get(&self, id: StoredTaskId) -> Option<(u64, &Task)> {
        let place = *self.places.get(&id)?;
        Some((place, self.rows.get(&place)?))
    }

    fn live(&self, id: StoredTaskId, epoch: u64, operation: &'static str) -> Result<u64, StoreError> {
        let live = self.get(id).filter(|(_, task)| task.row.status == TaskStatus::Running && task.row.epoch == epoch);
        live.map(|(place, _)| place).ok_or_else(|| StoreError::fenced(operation))
    }

    /// Changes a task, and keeps the indexes in step with its state.
    fn change(&mut self, place: u64, now: Timestamp, change: impl FnOnce(&mut TaskRow)) {
        let Some(Task { row, .. }) = self.rows.get_mut(&place) else { return };
        change(row);
        row.updated_at = now;
        if row.status != TaskStatus::Running {
            row.owner = None;
        }
        self.index(place);
    }

    fn remove(&mut self, place: u64) {
        if let Some(Task { mut row, .. }) = self.rows.remove(&place) {
            row.status = TaskStatus::Cancelled;
            self.places.remove(&row.task.id);
            self.index_row(place, &row.task, false);
        }
    }

    fn index(&mut self, place: u64) {
        if let Some(Task { row, .. }) = self.rows.get(&place) {
            let (task, is_unfinished) = (row.task.clone(), !row.status.has_ended());
            self.index_row(place, &task, is_unfinished);
        }
    }

    fn index_row(&mut self, place: u64, task: &NewTask, is_unfinished: bool) {
        if is_unfinished {
            self.unfinished.insert(place);
        } else {
            self.unfinished.remove(&place);
        }
        let Some(key) = shared_key(task) else { return };
        let of_key = self.keys.entry(key.clone()).or_default();
        if is_unfinished {
            of_key.insert(place);
        } else {
            of_key.remove(&place);
        }
        if of_key.is_empty() {
            self.keys.remove(&key);
        }
    }
}

/// Returns the state of a task whose attempt is over, and that is not.
fn again(row: &TaskRow) -> TaskStatus {
    if row.cancel { TaskStatus::Cancelled } else { TaskStatus::Pending }
}

fn shared_key(task: &NewTask) -> Option<SharedKey> {
    task.key.as_ref().map(|key| (task.name.clone(), key.scope.clone(), key.key.clone()))
}

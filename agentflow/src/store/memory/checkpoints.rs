//! [`Checkpoints`]: the tree of the checkpoints of one thread.

use std::collections::{BTreeMap, HashSet};

use super::{
    super::{
        delta::fold,
        error::{StoreError, StoreErrorKind},
        id::CheckpointId,
        thread::{CheckpointRow, NewCheckpoint, NewValues},
        value::{Stored, Timestamp},
    },
    trash::{Removed, Trash},
};
use crate::run_id::RunId;

/// A checkpoint with its whole state.
#[derive(Clone, Debug)]
pub(super) struct Checkpoint {
    pub(super) row: CheckpointRow,
    /// The length of the difference to the parent; `None` for a whole state.
    difference: Option<u64>,
}

/// The checkpoints of one thread.
#[derive(Clone, Debug, Default)]
pub(super) struct Checkpoints {
    rows: BTreeMap<CheckpointId, Checkpoint>,
    /// The greatest id that the thread has had, also if that checkpoint is gone.
    newest: Option<CheckpointId>,
}

impl Checkpoints {
    pub(super) fn get(&self, id: CheckpointId) -> Option<&CheckpointRow> {
        self.rows.get(&id).map(|checkpoint| &checkpoint.row)
    }

    pub(super) fn contains(&self, id: CheckpointId) -> bool {
        self.rows.contains_key(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns the checkpoints, the oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &CheckpointRow> {
        self.rows.values().map(|checkpoint| &checkpoint.row)
    }

    /// Builds checkpoints, each of which follows the one before, and the first one `parent`. Nothing is written yet.
    pub(super) fn build(
        &self,
        operation: &'static str,
        new: &[NewCheckpoint],
        parent: Option<CheckpointId>,
        run: Option<RunId>,
        now: Timestamp,
    ) -> Result<Vec<Checkpoint>, StoreError> {
        let mut built: Vec<Checkpoint> = Vec::with_capacity(new.len());
        for new in new {
            let parent = built.last().or_else(|| self.rows.get(&parent?));
            let id = CheckpointId::after(built.last().map_or(self.newest, |last| Some(last.row.id)));
            let mut checkpoint = build(operation, id, new, parent, now)?;
            checkpoint.row.run = run;
            built.push(checkpoint);
        }
        Ok(built)
    }

    /// Adds checkpoints that were built. Returns the id of the last one.
    pub(super) fn insert(&mut self, built: Vec<Checkpoint>) -> Option<CheckpointId> {
        let last = built.last().map(|checkpoint| checkpoint.row.id);
        self.newest = last.or(self.newest);
        self.rows.extend(built.into_iter().map(|checkpoint| (checkpoint.row.id, checkpoint)));
        last
    }

    /// Removes the checkpoints that a run made and that no checkpoint of another run or edit follows.
    pub(super) fn remove_made_by(&mut self, run: RunId) -> Vec<Checkpoint> {
        let mut followed = HashSet::new();
        for row in self.iter().filter(|row| row.run != Some(run)) {
            let mut parent = row.parent;
            while let Some(id) = parent.filter(|id| followed.insert(*id)) {
                parent = self.get(id).and_then(|row| row.parent);
            }
        }
        self.remove(|row| row.run == Some(run) && !followed.contains(&row.id))
    }

    /// Removes all checkpoints but the newest `keep` of each branch and those that are `needed`.
    pub(super) fn prune(&mut self, keep: usize, needed: &HashSet<CheckpointId>) -> Vec<Checkpoint> {
        let parents: HashSet<CheckpointId> = self.iter().filter_map(|row| row.parent).collect();
        let mut kept = needed.clone();
        for leaf in self.iter().filter(|row| !parents.contains(&row.id)) {
            let mut next = Some(leaf.id);
            for _ in 0..keep {
                let Some(row) = next.and_then(|id| self.get(id)) else { break };
                kept.insert(row.id);
                next = row.parent;
            }
        }
        self.remove(|row| !kept.contains(&row.id))
    }

    /// Removes the oldest checkpoints that are not `needed`, until there are at most `limit`.
    pub(super) fn limit(&mut self, limit: usize, needed: &HashSet<CheckpointId>) -> Vec<Checkpoint> {
        let excess = self.len().saturating_sub(limit);
        let oldest: HashSet<CheckpointId> =
            self.rows.keys().filter(|id| !needed.contains(id)).take(excess).copied().collect();
        self.remove(|row| oldest.contains(&row.id))
    }

    /// Removes the selected checkpoints. The children of a removed one have a whole state and no parent afterwards.
    fn remove(&mut self, is_removed: impl Fn(&CheckpointRow) -> bool) -> Vec<Checkpoint> {
        let removed: Vec<Checkpoint> =
            self.rows.extract_if(.., |_, checkpoint| is_removed(&checkpoint.row)).map(|(_, removed)| removed).collect();
        if removed.is_empty() {
            return removed;
        }
        // Parents have lesser ids, so that a child finds the new length of its parent here.
        let mut lengths = BTreeMap::new();
        for (id, Checkpoint { row, difference }) in &mut self.rows {
            let before = row.parent.and_then(|parent| lengths.get(&parent).copied());
            if before.is_none() {
                row.parent = None;
                *difference = None;
            }
            row.delta_bytes = difference.map_or(0, |own| before.unwrap_or(0) + own);
            lengths.insert(*id, row.delta_bytes);
        }
        removed
    }
}

impl Removed for Checkpoint {
    fn move_into(self, trash: &mut Trash) {
        trash.put(self.row);
    }
}

impl Removed for Checkpoints {
    fn move_into(self, trash: &mut Trash) {
        trash.put(self.rows.into_values());
    }
}

fn build(
    operation: &'static str,
    id: CheckpointId,
    new: &NewCheckpoint,
    parent: Option<&Checkpoint>,
    now: Timestamp,
) -> Result<Checkpoint, StoreError> {
    let invalid = |reason: &'static str| StoreError::new(operation, StoreErrorKind::Invalid).with_source(reason);
    let (values, difference) = match (&new.values, parent) {
        (NewValues::Snapshot(state), _) => (state.clone(), None),
        (_, None) => return Err(invalid("a checkpoint without a parent needs a whole state")),
        (NewValues::Same, Some(parent)) => (parent.row.values.clone(), Some(0)),
        (NewValues::Delta(delta), Some(parent)) => {
            let state = parent.row.values.json().ok_or_else(|| invalid("only JSON has differences"))?;
            let folded = fold(state, [&delta[..]])
                .map_err(|error| StoreError::new(operation, StoreErrorKind::Corrupt).with_source(error))?;
            (Stored::from(folded), Some(delta.len() as u64))
        }
    };
    let step = parent.map_or(-1, |parent| parent.row.step + 1);
    let mut row = CheckpointRow::new(id, step, new.clone(), values, now);
    row.parent = parent.map(|parent| parent.row.id);
    row.delta_bytes = difference.map_or(0, |own| parent.map_or(0, |parent| parent.row.delta_bytes) + own);
    Ok(Checkpoint { row, difference })
}

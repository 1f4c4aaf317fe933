//! The commits of runs, their progress, their release, and the rollback.

use std::time::Duration;

use super::{
    super::{
        error::{StoreError, StoreErrorKind},
        run::{Commit, Committed, RunEnd, RunStatus},
        thread::ProgressRecord,
        value::Timestamp,
    },
    data::Data,
    run_table::Run,
};
use crate::run_id::RunId;

impl Data {
    pub(super) fn commit(&mut self, commit: &Commit, now: Timestamp) -> Result<Committed, StoreError> {
        const OPERATION: &str = "commit";
        let invalid = |reason: &'static str| StoreError::new(OPERATION, StoreErrorKind::Invalid).with_source(reason);
        let id = commit.run;
        // The epoch comes first: the commit of a former owner may have the number of one of its successor.
        let run = self.runs.get_mut(id).filter(|run| run.row.epoch == commit.epoch);
        let run = run.ok_or_else(|| StoreError::fenced(OPERATION))?;
        if commit.number <= run.row.commit {
            return Ok(Committed::new(run.row.last_checkpoint, run.row.cancel));
        }
        if !run.is_running() {
            return Err(StoreError::fenced(OPERATION));
        }
        if commit.parent != run.row.last_checkpoint {
            return Err(invalid("the commit does not follow the run's last checkpoint"));
        }
        if commit.end.as_ref().is_some_and(|end| !end.status.has_ended()) {
            return Err(invalid("the run does not end in a state that has ended"));
        }
        let thread_id = run.row.run.thread.clone();
        let Some(thread) = self.threads.get_mut(&thread_id) else { return Err(StoreError::fenced(OPERATION)) };
        let new = commit.checkpoint.as_slice();
        let built = thread.checkpoints.build(OPERATION, new, commit.parent, Some(id), now)?;

        let made = thread.checkpoints.insert(built);
        thread.head = made.or(thread.head);
        thread.updated_at = now;
        thread.questions.close(&commit.closes, id);
        thread.questions.drop(&commit.drops, id);
        thread.questions.reopen(&commit.reopens, &mut self.trash);
        thread.questions.ask(&commit.questions, id, thread.head, now);
        if let Some(step) = &commit.clears {
            thread.progress.clear_step(step, &mut self.trash);
        }
        thread.progress.write(&commit.progress, id, &mut self.trash);

        run.row.last_checkpoint = made.or(run.row.last_checkpoint);
        run.row.commit = commit.number;
        run.row.steps = commit.steps;
        run.row.consumed = commit.consumed;
        run.row.crashes = 0;
        run.row.updated_at = now;
        run.counted_until = now;
        let committed = Committed::new(made, run.row.cancel);

        self.tasks.enqueue(&commit.tasks, &self.owners, now);
        if let Some(end) = &commit.end {
            self.end_run(id, end, now);
        }
        self.enforce_limits(&thread_id);
        Ok(committed)
    }

    pub(super) fn record(&mut self, id: RunId, epoch: u64, records: &[ProgressRecord]) -> Result<(), StoreError> {
        let thread = self.live_run(id, epoch, "record")?.row.run.thread.clone();
        if let Some(thread) = self.threads.get_mut(&thread) {
            thread.progress.write(records, id, &mut self.trash);
        }
        Ok(())
    }

    pub(super) fn release_run(
        &mut self,
        id: RunId,
        epoch: u64,
        consumed: Duration,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let run = self.live_run(id, epoch, "release_run")?;
        run.row.status = RunStatus::Queued;
        run.row.consumed = consumed;
        run.row.updated_at = now;
        run.counted_until = now;
        Ok(())
    }

    fn live_run(&mut self, id: RunId, epoch: u64, operation: &'static str) -> Result<&mut Run, StoreError> {
        let run = self.runs.get_mut(id).filter(|run| run.row.epoch == epoch && run.is_running());
        run.ok_or_else(|| StoreError::fenced(operation))
    }

    /// Ends a run that is there.
    fn end_run(&mut self, id: RunId, end: &RunEnd, now: Timestamp) {
        let Some(run) = self.runs.get_mut(id) else { return };
        let thread_id = run.row.run.thread.clone();
        run.row.failure.clone_from(&end.failure);
        self.runs.end(id, end.status, now);
        if let Some(thread) = self.threads.get_mut(&thread_id) {
            thread.rest = end.rest;
        }
        if end.rolls_back {
            self.roll_back(id, now);
        }
        if end.deletes_thread {
            self.remove_thread(&thread_id);
        }
    }

    /// Deletes a run and all that it made. A checkpoint that another run or an edit follows stays.
    fn roll_back(&mut self, id: RunId, now: Timestamp) {
        let Some(run) = self.runs.remove(id) else { return };
        if let Some(thread) = self.threads.get_mut(&run.row.run.thread) {
            thread.head = run.row.head_before;
            thread.rest = run.row.rest_before;
            thread.questions.roll_back(id, &mut self.trash);
            thread.progress.roll_back(id, &mut self.trash);
            self.trash.put(thread.checkpoints.remove_made_by(id));
        }
        self.tasks.roll_back(id, &self.owners, now);
        self.trash.put(run);
    }
}

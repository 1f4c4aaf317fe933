//! The takeover of runs.

use super::{
    super::{
        run::{POISON_CRASHES, RunFailure, RunStatus, TakeOver, TakenRun},
        thread::{QuestionStatus, Rest},
        value::Timestamp,
    },
    data::Data,
    run_table::Run,
    suspects::Suspects,
};
use crate::run_id::RunId;

/// The way in which a run changes hands.
#[derive(Clone, Copy)]
enum Change {
    /// The run was running when its owner died.
    Dead,
    /// The run was released, and goes on.
    Released,
    /// The run waits in the queue for its start.
    Queued,
}

impl Data {
    pub(super) fn take_over(&mut self, request: &TakeOver, now: Timestamp) -> Vec<TakenRun> {
        let candidates: Vec<(RunId, Change)> = self
            .runs
            .unfinished()
            .filter(|run| {
                run.row.run.graph == request.graph
                    && request.run.is_none_or(|only| only == run.id())
                    && !request.except.contains(&run.id())
            })
            .filter_map(|run| Some((run.id(), self.change_of(run, now)?)))
            .collect();
        let mut suspects = self.suspects(now);
        let mut taken = Vec::new();
        let mut count = 0;
        for (id, change) in candidates {
            let Some(run) = self.runs.get_mut(id) else { continue };
            let crashes = run.row.crashes + u32::from(matches!(change, Change::Dead));
            if crashes >= POISON_CRASHES {
                run.row.crashes = crashes;
                self.park(id, now);
            } else {
                let waits = matches!(change, Change::Queued);
                if count == request.limit || !(waits || suspects.may_resume(crashes)) {
                    continue;
                }
                let Run { row, counted_until } = run;
                if matches!(change, Change::Dead) {
                    row.consumed += self.owners.lived_since(row.owner, *counted_until);
                }
                if !waits {
                    row.status = RunStatus::Running;
                    suspects.add(crashes);
                }
                row.crashes = crashes;
                row.owner = request.owner;
                row.epoch += 1;
                row.updated_at = now;
                *counted_until = now;
                count += 1;
            }
            taken.extend(self.taken(id));
        }
        taken
    }

    /// Returns the crashes of the runs and tasks that living owners run.
    pub(super) fn suspects(&self, now: Timestamp) -> Suspects {
        let runs = self.runs.unfinished().filter(|run| run.is_running() && self.owners.is_alive(run.row.owner, now));
        Suspects::new(runs.map(|run| run.row.crashes).chain(self.tasks.crashes_of_running(&self.owners, now)))
    }

    fn change_of(&self, run: &Run, now: Timestamp) -> Option<Change> {
        let is_dead = !self.owners.is_alive(run.row.owner, now);
        match (run.is_running(), run.has_started()) {
            (true, _) => is_dead.then_some(Change::Dead),
            (false, false) => is_dead.then_some(Change::Queued),
            (false, true) => {
                let is_first = self.runs.first_of(&run.row.run.thread, now).is_none_or(|first| first.id() == run.id());
                is_first.then_some(Change::Released)
            }
        }
    }

    /// Ends a run that has been there at too many deaths of a process.
    fn park(&mut self, id: RunId, now: Timestamp) {
        let Some(Run { row, .. }) = self.runs.get_mut(id) else { return };
        let message = format!("the process died {} times while it drove this run", row.crashes);
        row.failure = Some(RunFailure::new("Poison", message, None));
        let thread = row.run.thread.clone();
        self.runs.end(id, RunStatus::Failed, now);
        if let Some(thread) = self.threads.get_mut(&thread) {
            thread.rest = Rest::Failed;
            thread.updated_at = now;
        }
    }

    fn taken(&self, id: RunId) -> Option<TakenRun> {
        let row = self.runs.get(id)?.row.clone();
        let thread = self.threads.get(&row.run.thread)?;
        let checkpoint = row.last_checkpoint.and_then(|id| thread.checkpoints.get(id)).cloned();
        let questions = thread.questions.iter().filter(|question| match question.status {
            QuestionStatus::Open => true,
            QuestionStatus::Answered => question.answered_by == Some(id),
            QuestionStatus::Closed | QuestionStatus::Dropped => false,
        });
        let questions = questions.cloned().collect();
        Some(TakenRun::new(row, checkpoint, questions, thread.progress.records()))
    }
}

//! [`Questions`]: the questions of one thread.

use super::{
    super::{
        id::{CheckpointId, QuestionId},
        thread::{NewAnswer, NewQuestion, QuestionRow, QuestionStatus},
        value::Timestamp,
    },
    trash::{Removed, Trash},
};
use crate::run_id::RunId;

/// The questions of one thread, the oldest first. Each change is made only from the state at which it begins.
#[derive(Debug, Default)]
pub(super) struct Questions(Vec<QuestionRow>);

impl Questions {
    /// Returns the questions, the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &QuestionRow> {
        self.0.iter()
    }

    pub(super) fn open(&self) -> impl Iterator<Item = &QuestionRow> {
        self.0.iter().filter(|row| row.status == QuestionStatus::Open)
    }

    pub(super) fn status(&self, question: QuestionId) -> Option<QuestionStatus> {
        self.0.iter().find(|row| row.asked.id == question).map(|row| row.status)
    }

    /// Adds open questions that a run asks. A question that is there stays as it is.
    pub(super) fn ask(&mut self, asked: &[NewQuestion], run: RunId, checkpoint: Option<CheckpointId>, now: Timestamp) {
        for asked in asked {
            if self.status(asked.id).is_none() {
                self.0.push(QuestionRow::new(asked.clone(), run, checkpoint, now));
            }
        }
    }

    pub(super) fn answer(&mut self, answers: &[NewAnswer], run: RunId) {
        for NewAnswer { question, answer } in answers {
            for row in self.select(std::slice::from_ref(question), QuestionStatus::Open) {
                row.status = QuestionStatus::Answered;
                row.answered_by = Some(run);
                row.answer = Some(answer.clone());
            }
        }
    }

    pub(super) fn close(&mut self, questions: &[QuestionId], run: RunId) {
        for row in self.select(questions, QuestionStatus::Answered) {
            row.status = QuestionStatus::Closed;
            row.ended_by = Some(run);
        }
    }

    pub(super) fn drop(&mut self, questions: &[QuestionId], run: RunId) {
        for row in self.select(questions, QuestionStatus::Open) {
            row.status = QuestionStatus::Dropped;
            row.ended_by = Some(run);
        }
    }

    /// Drops all open questions, on behalf of a run or an edit.
    pub(super) fn drop_all(&mut self, run: Option<RunId>) {
        for row in self.0.iter_mut().filter(|row| row.status == QuestionStatus::Open) {
            row.status = QuestionStatus::Dropped;
            row.ended_by = run;
        }
    }

    /// Opens answered questions whose answers cannot be read.
    pub(super) fn reopen(&mut self, questions: &[QuestionId], trash: &mut Trash) {
        for row in self.select(questions, QuestionStatus::Answered) {
            reopen(row, trash);
        }
    }

    /// Undoes all that a run did.
    pub(super) fn roll_back(&mut self, run: RunId, trash: &mut Trash) {
        trash.put(self.0.extract_if(.., |row| row.asked_by == run));
        for row in &mut self.0 {
            if row.answered_by == Some(run) {
                reopen(row, trash);
            } else if row.ended_by == Some(run) {
                row.ended_by = None;
                row.status = if row.answer.is_some() { QuestionStatus::Answered } else { QuestionStatus::Open };
            }
        }
    }

    /// Removes the oldest questions that have ended, until there are at most `limit` of them.
    pub(super) fn limit(&mut self, limit: usize, trash: &mut Trash) {
        let has_ended = |row: &QuestionRow| matches!(row.status, QuestionStatus::Closed | QuestionStatus::Dropped);
        let mut excess = self.0.iter().filter(|row| has_ended(row)).count().saturating_sub(limit);
        trash.put(self.0.extract_if(.., |row| {
            let is_removed = excess > 0 && has_ended(row);
            excess -= usize::from(is_removed);
            is_removed
        }));
    }

    /// Returns the open questions under new ids, for a copy of the thread.
    pub(super) fn copy_open(&self) -> Self {
        Self(
            self.open()
                .map(|row| {
                    let mut copy = row.clone();
                    copy.asked.id = QuestionId::new();
                    copy
                })
                .collect(),
        )
    }

    fn select<'a>(
        &'a mut self,
        questions: &'a [QuestionId],
        status: QuestionStatus,
    ) -> impl Iterator<Item = &'a mut QuestionRow> {
        self.0.iter_mut().filter(move |row| row.status == status && questions.contains(&row.asked.id))
    }
}

impl Removed for Questions {
    fn move_into(self, trash: &mut Trash) {
        trash.put(self.0);
    }
}

fn reopen(row: &mut QuestionRow, trash: &mut Trash) {
    row.status = QuestionStatus::Open;
    row.answered_by = None;
    row.ended_by = None;
    trash.put(row.answer.take());
}

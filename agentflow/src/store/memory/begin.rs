//! The acceptance and the start of runs.

use super::{
    super::{
        error::{StoreError, StoreErrorKind},
        id::{OwnerId, ThreadId},
        run::{BeginRun, Begun, CancelKind, NewRun, OnBusyThread, RunRow, RunStart, RunStarted, RunStatus},
        thread::{NewAnswer, QuestionStatus},
        value::Timestamp,
    },
    checkpoints::{Checkpoint, Checkpoints},
    data::{Data, Thread},
    run_table::Run,
};
use crate::run_id::RunId;

/// A start that was checked, or the reason against it.
type Checked = Result<Vec<Checkpoint>, Begun>;

impl Data {
    pub(super) fn begin_run(&mut self, request: &BeginRun, now: Timestamp) -> Result<Begun, StoreError> {
        let BeginRun { run, on_busy, start } = request;
        if let Some(known) = self.runs.get(run.id) {
            if known.row.run.thread == run.thread {
                return Ok(Begun::Known(Box::new(known.row.clone())));
            }
            let reason = "a run of another thread has this id";
            return Err(StoreError::new("begin_run", StoreErrorKind::Invalid).with_source(reason));
        }
        let thread = self.threads.get(&run.thread);
        if let Some(thread) = thread.filter(|thread| thread.graph != run.graph) {
            return Ok(Begun::OtherGraph(thread.graph.clone()));
        }
        if let Some(refusal) = refuse_answers(thread, &start.answers) {
            return Ok(refusal);
        }
        let Some(first) = self.runs.first_of(&run.thread, now) else {
            if run.not_before.is_some_and(|time| time > now) {
                self.accept(run, start, now);
                return Ok(Begun::Queued { behind: None });
            }
            return Ok(match self.check_start("begin_run", &run.thread, run.id, start, now)? {
                Ok(checkpoints) => {
                    self.accept(run, start, now);
                    Begun::Running(self.start(run.id, start, checkpoints, now))
                }
                Err(refusal) => refusal,
            });
        };
        let cancel = match on_busy {
            OnBusyThread::Reject => {
                return Ok(Begun::Busy { run: first.id(), is_driven: self.is_driven(first, now) });
            }
            OnBusyThread::Queue => None,
            OnBusyThread::Cancel => Some(CancelKind::Cancel),
            OnBusyThread::Rollback => Some(CancelKind::Rollback),
        };
        if let Some(kind) = cancel {
            let unfinished = self.runs.unfinished_of(&run.thread);
            let in_the_way: Vec<RunId> = unfinished.filter(|run| run.is_in_the_way(now)).map(Run::id).collect();
            for other in in_the_way {
                self.request_cancel(other, kind, now);
            }
        }
        let behind = self.runs.first_of(&run.thread, now).map(Run::id);
        self.accept(run, start, now);
        Ok(Begun::Queued { behind })
    }

    pub(super) fn start_run(
        &mut self,
        id: RunId,
        owner: OwnerId,
        start: &RunStart,
        now: Timestamp,
    ) -> Result<Begun, StoreError> {
        let Some(run) = self.runs.get(id) else { return Ok(Begun::Gone) };
        match run.row.status {
            RunStatus::Queued => {}
            RunStatus::Running => return Ok(Begun::Known(Box::new(run.row.clone()))),
            _ => return Ok(Begun::Gone),
        }
        let is_of_another = run.row.owner != owner;
        if is_of_another && self.owners.is_alive(run.row.owner, now) {
            return Err(StoreError::fenced("start_run"));
        }
        if run.has_started() {
            let reason = "the run has started, and has to be taken over";
            return Err(StoreError::new("start_run", StoreErrorKind::Invalid).with_source(reason));
        }
        let thread = run.row.run.thread.clone();
        match self.runs.first_of(&thread, now).map(Run::id) {
            Some(first) if first == id => {}
            behind => return Ok(Begun::Queued { behind }),
        }
        let checkpoints = match self.check_start("start_run", &thread, id, start, now)? {
            Ok(checkpoints) => checkpoints,
            Err(refusal) => return Ok(refusal),
        };
        if let Some(run) = self.runs.get_mut(id) {
            run.row.owner = owner;
            run.row.epoch += u64::from(is_of_another);
        }
        Ok(Begun::Running(self.start(id, start, checkpoints, now)))
    }

    /// Adds a queued run, and its thread if there is none.
    fn accept(&mut self, run: &NewRun, start: &RunStart, now: Timestamp) {
        let thread = self.threads.entry(run.thread.clone()).or_insert_with(|| Thread::new(run.graph.clone(), now));
        thread.updated_at = now;
        let mut row = RunRow::new(run.clone(), self.runs.next_place(), now);
        row.base = start.base;
        self.runs.insert(Run { row, counted_until: now });
        self.enforce_limits(&run.thread);
    }

    fn check_start(
        &self,
        operation: &'static str,
        thread: &ThreadId,
        run: RunId,
        start: &RunStart,
        now: Timestamp,
    ) -> Result<Checked, StoreError> {
        let thread = self.threads.get(thread);
        if let Some(refusal) = refuse_answers(thread, &start.answers) {
            return Ok(Err(refusal));
        }
        let head = thread.and_then(|thread| thread.head);
        if start.expected_head != head {
            return Ok(Err(Begun::HeadMoved(head)));
        }
        let none = Checkpoints::default();
        let checkpoints = thread.map_or(&none, |thread| &thread.checkpoints);
        if let Some(base) = start.base.filter(|base| !checkpoints.contains(*base)) {
            return Ok(Err(Begun::NoSuchCheckpoint(base)));
        }
        checkpoints.build(operation, &start.checkpoints, start.base, Some(run), now).map(Ok)
    }

    /// Makes a queued run running, with the checkpoints that were built for it.
    fn start(&mut self, id: RunId, start: &RunStart, built: Vec<Checkpoint>, now: Timestamp) -> RunStarted {
        let ids = built.iter().map(|checkpoint| checkpoint.row.id).collect();
        // The caller has looked both up.
        let Some(run) = self.runs.get_mut(id) else { return RunStarted::new(0, ids) };
        let thread_id = run.row.run.thread.clone();
        let Some(thread) = self.threads.get_mut(&thread_id) else { return RunStarted::new(0, ids) };

        let last = thread.checkpoints.insert(built).or(start.base);
        thread.questions.answer(&start.answers, id);
        if start.drops_questions || start.base != thread.head {
            thread.questions.drop_all(Some(id));
            thread.progress.clear(&mut self.trash);
        }
        run.row.status = RunStatus::Running;
        run.row.base = start.base;
        run.row.head_before = thread.head;
        run.row.rest_before = thread.rest;
        run.row.last_checkpoint = last;
        run.row.updated_at = now;
        run.counted_until = now;
        thread.head = last;
        thread.updated_at = now;
        let started = RunStarted::new(run.row.epoch, ids);
        self.enforce_limits(&thread_id);
        started
    }
}

/// Returns the refusal of answers to questions that are not open.
fn refuse_answers(thread: Option<&Thread>, answers: &[NewAnswer]) -> Option<Begun> {
    answers.iter().find_map(|NewAnswer { question, .. }| {
        let status = thread.and_then(|thread| thread.questions.status(*question));
        (status != Some(QuestionStatus::Open)).then_some(Begun::NotOpen { question: *question, status })
    })
}

//! The truth as the tasks and their spawners know it: what was accepted, what began, what it returned, and what still
//! has its captures.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use agentflow::task::{OnDuplicateKey, SpawnError, TaskId, TaskOutcome};

use tokio::time::Instant;

use super::program::{Job, Keep, Kind, LIMITED, Limits};

/// Panics without a message on stderr, of which a storm would write thousands.
pub(super) fn quiet_panic(message: &'static str) -> ! {
    std::panic::resume_unwind(Box::new(message))
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The spawner waits for a slot, or was dropped while it did.
    None,
    Accepted(TaskId),
    Refused(SpawnError),
}

/// One spawn, and the task that came of it.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) job: Job,
    /// The task must not begin before, unless the manager closes.
    due: Instant,
    pub(super) answer: Answer,
    /// The number of attempts that began.
    pub(super) began: u32,
    /// The end of the last attempt, if it ended by itself.
    pub(super) returned: Option<TaskOutcome>,
    /// The destructor of its captures panicked.
    pub(super) burst: bool,
    /// The number of its live captures.
    pub(super) captures: usize,
    pub(super) cancelled: bool,
    /// Its handle was dropped.
    pub(super) dropped: bool,
    /// The handle's result: the outcome, or else the row that its value names.
    pub(super) result: Option<Result<usize, TaskOutcome>>,
}

/// Everything that may cancel tasks that it doesn't name.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cancels {
    pub(super) all: bool,
    pub(super) names: [bool; 3],
    pub(super) runs: bool,
    pub(super) closing: bool,
}

/// The number of tasks whose code runs now.
#[derive(Debug, Default)]
struct Running {
    all: usize,
    limited: usize,
    keys: HashMap<(usize, u8), usize>,
}

#[derive(Debug)]
pub(super) struct Ledger {
    limits: Limits,
    rows: Mutex<Vec<Row>>,
    running: Mutex<Running>,
    cancels: Mutex<Cancels>,
    violations: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            rows: Mutex::default(),
            running: Mutex::default(),
            cancels: Mutex::default(),
            violations: Mutex::default(),
        }
    }

    pub(super) fn rows(&self) -> MutexGuard<'_, Vec<Row>> {
        lock(&self.rows)
    }

    pub(super) fn row(&self, row: usize, change: impl FnOnce(&mut Row)) {
        change(&mut self.rows()[row]);
    }

    pub(super) fn cancels(&self) -> MutexGuard<'_, Cancels> {
        lock(&self.cancels)
    }

    /// Notes a violation; a task must not fail for it, as that would change the program.
    pub(super) fn violated(&self, violation: String) {
        lock(&self.violations).push(violation);
    }

    pub(super) fn check(&self, holds: bool, violation: impl FnOnce() -> String) {
        if !holds {
            self.violated(violation());
        }
    }

    pub(super) fn violations(&self) -> Vec<String> {
        lock(&self.violations).clone()
    }

    pub(super) fn open(&self, job: &Job, delay: Duration) -> usize {
        let mut rows = self.rows();
        rows.push(Row {
            job: job.clone(),
            due: Instant::now() + delay,
            answer: Answer::None,
            began: 0,
            returned: None,
            burst: false,
            captures: 0,
            cancelled: false,
            dropped: false,
            result: None,
        });
        rows.len() - 1
    }

    /// Notes the answer to a spawn, or that it was given up. The captures of what is not accepted are gone by then.
    pub(super) fn answered(&self, row: usize, answer: Answer) {
        let captures = {
            let row = &mut self.rows()[row];
            row.answer = answer.clone();
            row.captures
        };
        if matches!(answer, Answer::Accepted(_)) {
            return;
        }
        self.check(captures == 0, || format!("row {row} is {answer:?}, and {captures} of its captures live"));
        let Answer::Refused(why) = answer else {
            return;
        };
        let rows = self.rows();
        let is_possible = match why {
            SpawnError::Full => self.limits.max_tasks.is_some(),
            SpawnError::DuplicateKey => matches!(rows[row].job.key, Some((_, OnDuplicateKey::Skip))),
            SpawnError::Closed => self.cancels().closing,
            SpawnError::RunEnded => self.cancels().runs,
            _ => false,
        };
        self.check(is_possible, || format!("row {row} was refused as {why:?}"));
    }

    /// The code of a task begins.
    pub(super) fn enter(self: &Arc<Self>, row: usize) -> Inside {
        self.row(row, |row| {
            row.began += 1;
            row.returned = None;
        });
        let (name, key, due) = {
            let Row { job, due, .. } = &self.rows()[row];
            (job.name, job.key.map(|(key, _)| (job.name, key)), *due)
        };
        let is_due = self.cancels().closing || Instant::now() >= due;
        self.check(is_due, || format!("row {row} began before its delay was over"));
        let mut running = lock(&self.running);
        running.all += 1;
        running.limited += usize::from(name == LIMITED);
        let limits = self.limits;
        self.check(limits.max_running.is_none_or(|max| running.all <= max), || format!("{} run at once", running.all));
        let limited = limits.max_limited.is_none_or(|max| running.limited <= max);
        self.check(limited, || format!("{} of the limited name run at once", running.limited));
        if let Some(key) = key {
            let of_key = running.keys.entry(key).or_default();
            *of_key += 1;
            self.check(*of_key == 1, || format!("{of_key} of one key run at once, row {row} among them"));
        }
        drop(running);
        Inside { ledger: Arc::clone(self), name, key }
    }
}

/// Lives while the code of a task runs.
#[derive(Debug)]
pub(super) struct Inside {
    ledger: Arc<Ledger>,
    name: usize,
    key: Option<(usize, u8)>,
}

impl Drop for Inside {
    fn drop(&mut self) {
        let mut running = lock(&self.ledger.running);
        running.all -= 1;
        running.limited -= usize::from(self.name == LIMITED);
        if let Some(key) = self.key {
            *running.keys.entry(key).or_default() -= 1;
        }
    }
}

/// A value that a task captures. It is counted while it lives, and may panic when it is dropped.
#[derive(Debug)]
pub(super) struct Capture {
    ledger: Arc<Ledger>,
    row: usize,
}

impl Capture {
    pub(super) fn new(ledger: &Arc<Ledger>, row: usize) -> Self {
        ledger.row(row, |row| row.captures += 1);
        Self { ledger: Arc::clone(ledger), row }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let mut bursts = false;
        self.ledger.row(self.row, |row| {
            row.captures -= 1;
            // Before it began it would be the spawner's panic, and in a panic it would abort the process.
            bursts = row.job.destructor_panics && row.began > 0 && !thread::panicking();
            row.burst |= bursts;
        });
        if bursts {
            quiet_panic("a capture was dropped");
        }
    }
}

impl Row {
    pub(super) fn id(&self) -> Option<TaskId> {
        match self.answer {
            Answer::Accepted(id) => Some(id),
            _ => None,
        }
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.dropped && matches!(self.job.keep, Keep::AbortOnDrop)
    }

    pub(super) fn is_blocking(&self) -> bool {
        matches!(self.job.kind, Kind::Blocking)
    }
}

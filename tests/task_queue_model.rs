//! Random programs of spawns under limits against a simple model, on the paused clock: accepted, queued, running and
//! dropped tasks, and the times of their starts.
//!
//! The order of two events at the same moment is not defined. A program ends there.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use agentflow::{
    BackgroundTaskManager,
    task::{OnDuplicateKey, OnFull, SpawnError, TaskHandle, TaskManagerOptions, TaskOutcome, TaskState},
};
use proptest::prelude::*;
use tokio::time::{Instant, sleep};

use crate::support::settle;

const LIMITED: &str = "limited";
const FREE: &str = "free";

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    max_tasks: usize,
    on_full: OnFull,
    max_running: usize,
    /// The limit on the running tasks with the limited name.
    max_limited: usize,
}

#[derive(Clone, Copy, Debug)]
struct Job {
    name: &'static str,
    key: Option<(&'static str, OnDuplicateKey)>,
    /// The time that the task runs, in milliseconds.
    length: u64,
    timeout: Option<u64>,
    queue_timeout: Option<u64>,
    /// The grace period, for a `cancel_last` task.
    cancel_last: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Spawn(Job),
    Sleep(u64),
    Cancel(usize),
    CancelNamed(&'static str),
}

fn limits() -> impl Strategy<Value = Limits> {
    let on_full = prop::sample::select(vec![OnFull::Reject, OnFull::DropOldest]);
    (2..9_usize, on_full, 1..4_usize, 1..3_usize).prop_map(|(max_tasks, on_full, max_running, max_limited)| Limits {
        max_tasks,
        on_full,
        max_running,
        max_limited,
    })
}

fn job() -> impl Strategy<Value = Job> {
    let when_busy = prop::sample::select(vec![OnDuplicateKey::Replace, OnDuplicateKey::Skip, OnDuplicateKey::Queue]);
    // A task has a limited name or a key, not both: else the order of two ends at one moment would matter.
    let kind = prop_oneof![
        Just((FREE, None)),
        Just((LIMITED, None)),
        (prop::sample::select(vec!["a", "b"]), when_busy).prop_map(|key| (FREE, Some(key))),
    ];
    let timeouts = (prop::option::weighted(0.3, 1..1_500_u64), prop::option::weighted(0.3, 1..1_000_u64));
    let cancel_last = prop::option::weighted(0.2, 1..600_u64);
    (kind, 1..800_u64, timeouts, cancel_last).prop_map(
        |((name, key), length, (timeout, queue_timeout), cancel_last)| Job {
            name,
            key,
            length,
            timeout,
            queue_timeout,
            cancel_last,
        },
    )
}

fn program() -> impl Strategy<Value = (Limits, Vec<Step>, u64)> {
    let step = prop_oneof![
        8 => job().prop_map(Step::Spawn),
        4 => (1..600_u64).prop_map(Step::Sleep),
        2 => any::<usize>().prop_map(Step::Cancel),
        1 => prop::sample::select(vec![FREE, LIMITED]).prop_map(Step::CancelNamed),
    ];
    (limits(), prop::collection::vec(step, 1..40), 1..1_500_u64)
}

/// A task that was accepted.
#[derive(Debug)]
struct Row {
    job: Job,
    spawned: u64,
    /// The time at which the task was permitted to run.
    turn: Option<u64>,
    /// The task was asked to stop, and ends at once.
    is_stopping: bool,
    /// The end of the grace period in a close.
    grace_over: Option<u64>,
    end: Option<(u64, TaskOutcome)>,
}

impl Row {
    fn lives(&self) -> bool {
        self.end.is_none()
    }

    /// Returns the time and the outcome if nothing else happens.
    fn next(&self) -> Option<(u64, TaskOutcome)> {
        let own = self.turn.map(|turn| (turn + self.job.length, TaskOutcome::Completed));
        let total = self.job.timeout.map(|timeout| (self.spawned + timeout, TaskOutcome::TimedOut));
        let in_queue = self.job.queue_timeout.filter(|_| self.turn.is_none() && self.grace_over.is_none());
        let in_queue = in_queue.map(|timeout| (self.spawned + timeout, TaskOutcome::TimedOut));
        let grace = self.grace_over.map(|over| (over, TaskOutcome::Aborted));
        // `min_by_key` takes the first of several ends at one moment: the task's own end wins.
        [own, total, in_queue, grace].into_iter().flatten().min_by_key(|(at, _)| *at).filter(|_| self.lives())
    }

    fn state(&self) -> TaskState {
        match (self.turn, self.grace_over) {
            (_, Some(_)) => TaskState::Cancelling,
            (None, None) => TaskState::Queued,
            (Some(_), None) => TaskState::Running,
        }
    }
}

/// Two things are due at one moment.
struct Tie;

#[derive(Debug)]
struct Model {
    limits: Limits,
    rows: Vec<Row>,
    /// The start of each task: its time and its row.
    began: Vec<(u64, usize)>,
    rejected: u64,
}

impl Model {
    fn live(&self) -> impl DoubleEndedIterator<Item = usize> {
        (0..self.rows.len()).filter(|row| self.rows[*row].lives())
    }

    fn of_key(&self, key: &str) -> Vec<usize> {
        self.live().filter(|row| self.rows[*row].job.key.is_some_and(|(known, _)| known == key)).collect()
    }

    fn has_turn(&self, row: usize) -> bool {
        let job = self.rows[row].job;
        let is_first = job.key.is_none_or(|(key, _)| self.of_key(key).first() == Some(&row));
        let running: Vec<_> = self.live().map(|other| &self.rows[other]).filter(|other| other.turn.is_some()).collect();
        let limited = running.iter().filter(|other| other.job.name == LIMITED).count();
        let has_room = running.len() < self.limits.max_running;
        is_first && has_room && (job.name != LIMITED || limited < self.limits.max_limited)
    }

    /// Starts the tasks that may run, oldest first.
    fn start(&mut self, now: u64) {
        for row in 0..self.rows.len() {
            if self.rows[row].lives() && self.rows[row].turn.is_none() && self.has_turn(row) {
                self.rows[row].turn = Some(now);
                if !self.rows[row].is_stopping {
                    self.began.push((now, row));
                }
            }
        }
    }

    fn end(&mut self, row: usize, now: u64, outcome: TaskOutcome) {
        self.rows[row].end = Some((now, outcome));
        self.start(now);
    }

    /// Asks all these tasks to stop before any of them ends.
    fn stop(&mut self, rows: &[(usize, TaskOutcome)], now: u64) {
        for (row, _) in rows {
            self.rows[*row].is_stopping = true;
        }
        for (row, outcome) in rows {
            self.end(*row, now, *outcome);
        }
    }

    fn cancel(&mut self, now: u64, which: impl Fn(&Row) -> bool) -> usize {
        let rows: Vec<_> =
            self.live().filter(|row| which(&self.rows[*row])).map(|row| (row, TaskOutcome::Cancelled)).collect();
        self.stop(&rows, now);
        rows.len()
    }

    /// Returns the task that has been queued longest, or else the one that was spawned first.
    fn oldest(&self) -> Option<usize> {
        let droppable: Vec<_> = self.live().filter(|row| self.rows[*row].job.cancel_last.is_none()).collect();
        let waits = droppable.iter().find(|row| self.rows[**row].turn.is_none());
        waits.or(droppable.first()).copied()
    }

    fn spawn(&mut self, job: Job, now: u64) -> Result<(), SpawnError> {
        let mut stopped: Vec<(usize, TaskOutcome)> = Vec::new();
        if let Some((key, when_busy)) = job.key {
            let others = self.of_key(key);
            match when_busy {
                OnDuplicateKey::Skip if !others.is_empty() => return Err(SpawnError::DuplicateKey),
                OnDuplicateKey::Replace => stopped.extend(others.iter().map(|row| (*row, TaskOutcome::Cancelled))),
                _ => {}
            }
        }
        // The tasks that it replaces free their slots for it.
        if self.live().count() >= self.limits.max_tasks && stopped.is_empty() {
            let oldest = if self.limits.on_full == OnFull::DropOldest { self.oldest() } else { None };
            stopped.push((oldest.ok_or(SpawnError::Full)?, TaskOutcome::Evicted));
        }
        self.rows.push(Row { job, spawned: now, turn: None, is_stopping: false, grace_over: None, end: None });
        self.start(now);
        self.stop(&stopped, now);
        Ok(())
    }

    /// Advances the time to the end of the last task, at most to `until`; returns the time reached.
    fn pass(&mut self, until: u64) -> Result<u64, Tie> {
        let mut now = None;
        loop {
            let due = self.live().filter_map(|row| self.rows[row].next().map(|(at, outcome)| (at, row, outcome)));
            let Some((at, row, outcome)) = due.min_by_key(|(at, ..)| *at).filter(|(at, ..)| *at <= until) else {
                return Ok(now.filter(|_| self.live().next().is_none()).unwrap_or(until));
            };
            if self.live().filter_map(|other| self.rows[other].next()).filter(|(other, _)| *other == at).count() > 1 {
                return Err(Tie);
            }
            self.end(row, at, outcome);
            now = Some(at);
        }
    }

    /// Closes the manager; returns the time at which it is closed.
    fn close(&mut self, now: u64, until: u64) -> Result<u64, Tie> {
        if self.live().next().is_none() {
            return Ok(now);
        }
        let drained = self.pass(until)?;
        if self.live().next().is_none() {
            // At the bound itself the order of the two is not defined.
            return if drained == until { Err(Tie) } else { Ok(drained) };
        }
        if self.rows.iter().any(|row| row.end.is_some_and(|(at, _)| at == until)) {
            return Err(Tie);
        }
        self.cancel(until, |row| row.job.cancel_last.is_none());
        for row in self.rows.iter_mut().filter(|row| row.lives()) {
            let due = row.next();
            row.grace_over = row.job.cancel_last.map(|grace| until + grace);
            if due.map(|(at, _)| at) == row.grace_over {
                return Err(Tie);
            }
        }
        if self.live().next().is_none() { Ok(until) } else { self.pass(u64::MAX) }
    }
}

struct Program {
    tasks: BackgroundTaskManager,
    zero: Instant,
    model: Model,
    handles: Vec<TaskHandle<()>>,
    began: Arc<Mutex<Vec<(u64, usize)>>>,
}

impl Program {
    fn new(limits: Limits) -> Self {
        let options = TaskManagerOptions::new()
            .history(1_000)
            .max_tasks(limits.max_tasks)
            .on_full(limits.on_full)
            .max_running(limits.max_running)
            .max_running_named(LIMITED, limits.max_limited);
        Self {
            tasks: BackgroundTaskManager::with_options(options),
            zero: Instant::now(),
            model: Model { limits, rows: Vec::new(), began: Vec::new(), rejected: 0 },
            handles: Vec::new(),
            began: Arc::default(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.zero.elapsed().as_millis()).unwrap()
    }

    fn spawn(&mut self, job: Job) {
        let (began, zero, row) = (Arc::clone(&self.began), self.zero, self.model.rows.len());
        let work = async move {
            began.lock().unwrap().push((u64::try_from(zero.elapsed().as_millis()).unwrap(), row));
            sleep(millis(job.length)).await;
        };
        let mut builder = self.tasks.create_task(work).name(job.name);
        if let Some((key, when_busy)) = job.key {
            builder = builder.key_in("shared", key, when_busy);
        }
        if let Some(timeout) = job.timeout {
            builder = builder.timeout(millis(timeout));
        }
        if let Some(timeout) = job.queue_timeout {
            builder = builder.queue_timeout(millis(timeout));
        }
        if let Some(grace) = job.cancel_last {
            builder = builder.cancel_last().grace_period(millis(grace));
        }
        let spawned = builder.spawn();
        let expected = self.model.spawn(job, self.zero.elapsed().as_millis().try_into().unwrap());
        assert_eq!(spawned.as_ref().map(drop).map_err(Clone::clone), expected);
        match spawned {
            Ok(handle) => self.handles.push(handle),
            Err(_) => self.model.rejected += 1,
        }
    }

    async fn step(&mut self, step: Step) -> Result<(), Tie> {
        let now = self.now();
        match step {
            Step::Spawn(job) => self.spawn(job),
            Step::Sleep(time) => {
                sleep(millis(time)).await;
                self.model.pass(now + time)?;
            }
            Step::Cancel(_) if self.handles.is_empty() => {}
            Step::Cancel(any) => {
                let row = any % self.handles.len();
                self.handles[row].cancel();
                if self.model.rows[row].lives() {
                    self.model.stop(&[(row, TaskOutcome::Cancelled)], now);
                }
            }
            Step::CancelNamed(name) => {
                assert_eq!(self.tasks.cancel_named(name), self.model.cancel(now, |row| row.job.name == name));
            }
        }
        settle().await;
        self.check();
        Ok(())
    }

    async fn close(&mut self, bound: u64) -> Result<(), Tie> {
        let now = self.now();
        let closed = self.model.close(now, now + bound)?;
        let report = self.tasks.close(Some(millis(bound))).await;
        assert_eq!((self.now(), report.still_running.len()), (closed, 0));
        let unfinished = |row: &&Row| {
            let (at, outcome) = row.end.unwrap();
            at >= now + bound && matches!(outcome, TaskOutcome::Cancelled | TaskOutcome::Aborted)
        };
        assert_eq!(report.unfinished.len(), self.model.rows.iter().filter(unfinished).count());
        self.check();
        Ok(())
    }

    fn check(&self) {
        let rows = &self.model.rows;
        let stats = self.tasks.stats();
        let count = |outcome| rows.iter().filter(|row| row.end.is_some_and(|(_, end)| end == outcome)).count() as u64;
        assert_eq!(stats.outcomes.completed, count(TaskOutcome::Completed));
        assert_eq!(stats.outcomes.timed_out, count(TaskOutcome::TimedOut));
        assert_eq!(stats.outcomes.cancelled, count(TaskOutcome::Cancelled));
        assert_eq!(stats.outcomes.aborted, count(TaskOutcome::Aborted));
        assert_eq!(stats.outcomes.evicted, count(TaskOutcome::Evicted));
        assert_eq!((stats.outcomes.failed, stats.outcomes.panicked), (0, 0));
        assert_eq!((stats.spawned, stats.rejected), (rows.len() as u64, self.model.rejected));
        assert_eq!(stats.queued, self.model.live().filter(|row| rows[*row].turn.is_none()).count() as u64);

        let live: Vec<_> = self.model.live().map(|row| (row as u64 + 1, rows[row].state())).collect();
        let infos: Vec<_> = self.tasks.task_info().iter().map(|info| (info.id().get(), info.state())).collect();
        assert_eq!(infos, live);

        let mut began = self.began.lock().unwrap().clone();
        let mut expected = self.model.began.clone();
        // The order of starts at one moment is not defined.
        began.sort_unstable();
        expected.sort_unstable();
        assert_eq!(began, expected);

        for end in self.tasks.recently_finished() {
            let row = usize::try_from(end.id().get()).unwrap() - 1;
            let (at, outcome) = rows[row].end.unwrap();
            assert_eq!((end.outcome(), end.age()), (outcome, millis(at - rows[row].spawned)));
            assert_eq!(end.attempts(), u32::from(expected.iter().any(|(_, began)| *began == row)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_program_behaves_like_the_model((limits, steps, bound) in program()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut program = Program::new(limits);
            for step in steps {
                if program.step(step).await.is_err() {
                    return;
                }
            }
            let _ = program.close(bound).await;
        });
    }
}

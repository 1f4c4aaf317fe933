//! The invariants that hold when a program is over, and all its tasks have ended.

use std::collections::{BTreeMap, HashMap};

use agentflow::{
    BackgroundTaskManager,
    task::{FinishedTask, OnDuplicateKey, OnFull, TaskOutcome, TimeoutKind},
};

use super::{
    EVENTS_IN_TRUE_ORDER,
    ledger::{Answer, Cancels, Row},
    observers::{Happened, Line, Reading},
    program::{Ending, Keep, Kind, LIMITED, NAMES, Program},
    world::row_of,
};

/// The task that handed out its manager, and is in no row.
pub(super) const OBSERVER: u64 = 1;

macro_rules! check {
    ($faults:expr, $holds:expr, $($message:tt)+) => {
        if !$holds {
            $faults.push(format!($($message)+));
        }
    };
}

/// Everything that is known of a program that is over.
#[derive(Debug)]
pub(super) struct Known<'a> {
    pub(super) program: &'a Program,
    pub(super) rows: Vec<Row>,
    pub(super) cancels: Cancels,
    pub(super) manager: &'a BackgroundTaskManager,
    pub(super) lines: Vec<Line>,
    /// Those who could read to the end.
    pub(super) readings: Vec<Reading>,
}

impl Known<'_> {
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut records = BTreeMap::new();
        for end in self.manager.recently_finished() {
            let id = end.id().get();
            check!(faults, records.insert(id, end).is_none(), "task {id} has two records");
        }
        self.counters(&records, &mut faults);
        self.each_row(&records, &mut faults);
        self.log(&records, &mut faults);
        for reading in &self.readings {
            faults.extend(reading.faults.iter().cloned());
            self.events(reading, &records, &mut faults);
        }
        self.readers_agree(&mut faults);
        faults
    }

    fn counters(&self, records: &BTreeMap<u64, FinishedTask>, faults: &mut Vec<String>) {
        let stats = self.manager.stats();
        let accepted = self.rows.iter().filter(|row| row.id().is_some()).count() as u64 + OBSERVER;
        let refused = self.rows.iter().filter(|row| matches!(row.answer, Answer::Refused(_))).count() as u64;
        check!(faults, (stats.active, stats.queued) == (0, 0), "something lives: {stats}");
        check!(faults, stats.spawned == accepted, "{accepted} were accepted: {stats}");
        check!(faults, stats.rejected == refused, "{refused} were refused: {stats}");
        let of = |outcome| records.values().filter(|end| end.outcome() == outcome).count() as u64;
        for (outcome, count) in [
            (TaskOutcome::Completed, stats.outcomes.completed),
            (TaskOutcome::Failed, stats.outcomes.failed),
            (TaskOutcome::Panicked, stats.outcomes.panicked),
            (TaskOutcome::TimedOut, stats.outcomes.timed_out),
            (TaskOutcome::Cancelled, stats.outcomes.cancelled),
            (TaskOutcome::Aborted, stats.outcomes.aborted),
            (TaskOutcome::Evicted, stats.outcomes.evicted),
        ] {
            check!(faults, count == of(outcome), "{} records are {outcome}: {stats}", of(outcome));
        }
        let retries: u64 = records.values().map(|end| u64::from(end.attempts().saturating_sub(1))).sum();
        check!(faults, stats.retries == retries, "{retries} retries are in the records: {stats}");
    }

    fn each_row(&self, records: &BTreeMap<u64, FinishedTask>, faults: &mut Vec<String>) {
        let mut of_rows = HashMap::new();
        for (id, end) in records.iter().filter(|(id, _)| **id != OBSERVER) {
            match row_of(end.context()) {
                Some(row) => check!(faults, of_rows.insert(row, end).is_none(), "row {row} has two tasks"),
                None => faults.push(format!("task {id} is of no row: {end}")),
            }
        }
        for (number, row) in self.rows.iter().enumerate() {
            check!(faults, row.captures == 0, "row {number} has {} captures that live: {row:?}", row.captures);
            match (row.id(), of_rows.get(&number)) {
                (Some(id), Some(end)) => {
                    check!(faults, id == end.id(), "row {number} is task {id}, and in the records {end}");
                    if let Some(why) = self.contradiction(number, row, end) {
                        faults.push(format!("row {number} {why}: {end:?}, {row:?}"));
                    }
                }
                (None, None) => {
                    check!(faults, row.began == 0, "row {number} began, and was not accepted: {row:?}");
                }
                (Some(id), None) => faults.push(format!("task {id} of row {number} has no record: {row:?}")),
                (None, Some(end)) => faults.push(format!("row {number} was not accepted, but {end}")),
            }
        }
    }

    /// Returns a fact in the record of a task that contradicts the steps.
    fn contradiction(&self, number: usize, row: &Row, end: &FinishedTask) -> Option<String> {
        let (outcome, limits) = (end.outcome(), self.program.limits);
        let fault = |fault: &str| Some(fault.to_owned());
        let from_handle = row.result.map(|result| result.map_or_else(|outcome| outcome, |_| TaskOutcome::Completed));
        if from_handle.is_some_and(|from_handle| from_handle != outcome) {
            return fault("has another outcome in its handle");
        }
        let was_kept = !row.dropped && !matches!(row.job.keep, Keep::Nothing);
        if was_kept && from_handle.is_none() && !matches!(self.program.ending, Ending::ShutDownRuntime) {
            return fault("has a handle that has no result");
        }
        if matches!(row.result, Some(Ok(value)) if value != number) {
            return fault("has the result of another task");
        }
        if end.attempts() != row.began {
            return fault("began another number of times");
        }
        if (outcome == TaskOutcome::Panicked || outcome == TaskOutcome::Failed) != end.error().is_some() {
            return fault("has an error, or has none");
        }
        if (outcome == TaskOutcome::TimedOut) != end.limit().is_some() {
            return fault("has a limit, or has none");
        }
        if row.burst {
            return if outcome == TaskOutcome::Panicked { None } else { fault("has a destructor that panicked") };
        }
        let is_cut_off = !matches!(outcome, TaskOutcome::Completed | TaskOutcome::Failed | TaskOutcome::Panicked);
        let may_go_on = matches!(row.job.kind, Kind::Retrying { .. }) && row.returned != Some(TaskOutcome::Completed);
        match row.returned {
            Some(returned) if returned == outcome => return None,
            Some(_) if !(may_go_on && is_cut_off) => return fault("returned something else"),
            None if !is_cut_off => return fault("did not end by itself"),
            _ => {}
        }
        let job = &row.job;
        let has_grace = matches!(job.kind, Kind::Context { .. }) || job.cancel_last;
        let is_possible = match outcome {
            TaskOutcome::Cancelled => self.may_be_cancelled(row),
            // Without its grace, or when that was over, or with its runtime.
            TaskOutcome::Aborted => {
                row.is_aborted()
                    || (has_grace && self.may_be_cancelled(row))
                    || matches!(self.program.ending, Ending::ShutDownRuntime)
            }
            TaskOutcome::Evicted => {
                limits.max_tasks.is_some()
                    && limits.on_full == OnFull::DropOldest
                    && !job.cancel_last
                    && !row.is_blocking()
            }
            TaskOutcome::TimedOut => match end.limit() {
                Some(TimeoutKind::Total) => job.timeout.is_some(),
                Some(TimeoutKind::Attempt) => {
                    matches!(job.kind, Kind::Retrying { attempt_timeout: Some(_), .. }) && row.began > 0
                }
                Some(TimeoutKind::Idle) => job.idle_timeout.is_some() && end.attempts() > 0,
                Some(TimeoutKind::Queue) => job.queue_timeout.or(limits.queue_timeout).is_some() && end.attempts() == 0,
                _ => false,
            },
            _ => true,
        };
        if is_possible { None } else { fault("has an outcome without a cause") }
    }

    /// Returns whether a step may have cancelled the task of this row.
    fn may_be_cancelled(&self, row: &Row) -> bool {
        let cancels = self.cancels;
        let replaces = |other: &&Row| match (other.job.key, row.job.key) {
            (Some((new, OnDuplicateKey::Replace)), Some((old, _))) => new == old && other.job.name == row.job.name,
            _ => false,
        };
        // It may be a task of a run, or a child of one.
        let by_key = self.rows.iter().any(|other| replaces(&other));
        row.cancelled || cancels.all || cancels.closing || cancels.names[row.job.name] || cancels.runs || by_key
    }

    fn log(&self, records: &BTreeMap<u64, FinishedTask>, faults: &mut Vec<String>) {
        let mut ends = BTreeMap::new();
        let mut failed: BTreeMap<u64, u32> = BTreeMap::new();
        let mut rejected: BTreeMap<String, usize> = BTreeMap::new();
        let mut unused = 0;
        for line in &self.lines {
            match line {
                Line::Ended { id, outcome, has_error } => {
                    let line = (outcome.clone(), *has_error);
                    check!(faults, ends.insert(*id, line).is_none(), "the end of task {id} was logged twice");
                }
                Line::AttemptFailed { id, attempt } => {
                    let failed = failed.entry(*id).or_default();
                    *failed += 1;
                    check!(faults, u64::from(*failed) == *attempt, "task {id} failed {failed} times: {line:?}");
                }
                Line::Rejected { reason } => *rejected.entry(reason.clone()).or_default() += 1,
                Line::Other(message) if message.contains("`max_running_named`") => {
                    unused += 1;
                    let is_true = self.program.limits.max_limited.is_some()
                        && records.values().all(|end| end.name() != NAMES[LIMITED]);
                    check!(faults, is_true && unused == 1, "a limit that was used, or line {unused} of it: {message}");
                }
                Line::Other(message) => {
                    let is_known = matches!(self.program.ending, Ending::DropManager | Ending::ShutDownRuntime)
                        && message.contains("dropped without");
                    check!(faults, is_known, "an unexpected line: {message}");
                }
            }
        }
        for (id, end) in records {
            let expected = (end.outcome().as_str().to_owned(), end.error().is_some());
            check!(faults, ends.remove(id).as_ref() == Some(&expected), "the log differs from {end:?}");
            let failed = failed.remove(id).unwrap_or_default();
            let attempts = end.attempts();
            check!(faults, failed == attempts || failed + 1 == attempts || attempts == 0, "{failed} failed: {end:?}");
        }
        check!(faults, ends.is_empty() && failed.is_empty(), "the log has others: {ends:?} {failed:?}");
        let mut expected: BTreeMap<String, usize> = BTreeMap::new();
        for row in &self.rows {
            if let Answer::Refused(why) = &row.answer {
                *expected.entry(why.as_str().to_owned()).or_default() += 1;
            }
        }
        check!(faults, rejected == expected, "{expected:?} were refused, and the log has {rejected:?}");
    }

    fn events(&self, reading: &Reading, records: &BTreeMap<u64, FinishedTask>, faults: &mut Vec<String>) {
        #[derive(Debug, Default)]
        struct Story {
            spawned: u32,
            started: u32,
            failed: u32,
            ended: Option<TaskOutcome>,
        }
        check!(faults, reading.has_ended, "a stream has not ended");
        let is_complete = reading.missed == 0;
        let mut stories: BTreeMap<u64, Story> = BTreeMap::new();
        let (mut running, mut limited, mut keys) = (0, 0, HashMap::<&str, u64>::new());
        for seen in &reading.seen {
            let id = seen.id.get();
            let story = stories.entry(id).or_default();
            check!(faults, story.ended.is_none(), "{seen:?} came after the end: {story:?}");
            let begins_well = story.spawned == 1 || seen.happened == Happened::Spawned || !is_complete;
            check!(faults, begins_well, "{seen:?} came before the spawn");
            match seen.happened {
                Happened::Spawned => story.spawned += 1,
                Happened::Started => {
                    story.started += 1;
                    running += 1;
                    limited += usize::from(seen.name == NAMES[LIMITED]);
                    if let Some(key) = &seen.key {
                        let before = keys.insert(key, id);
                        let is_free = before.is_none() || !is_complete || !EVENTS_IN_TRUE_ORDER;
                        check!(faults, is_free, "{seen:?} runs beside {before:?}, which has the same key");
                    }
                }
                Happened::AttemptFailed(attempt) => {
                    story.failed += 1;
                    check!(faults, story.failed == attempt || !is_complete, "{seen:?} after {story:?}");
                    check!(faults, story.started == 1 || !is_complete, "{seen:?} after {story:?}");
                }
                Happened::Progress => check!(faults, story.started == 1 || !is_complete, "{seen:?} after {story:?}"),
                Happened::Ended(outcome) => {
                    story.ended = Some(outcome);
                    if story.started == 1 {
                        running -= 1;
                        limited -= usize::from(seen.name == NAMES[LIMITED]);
                        if let Some(key) = &seen.key
                            && keys.get(&**key) == Some(&id)
                        {
                            keys.remove(&**key);
                        }
                    }
                }
            }
            if is_complete && EVENTS_IN_TRUE_ORDER {
                let limits = self.program.limits;
                check!(faults, limits.max_running.is_none_or(|max| running <= max), "{running} run at {seen:?}");
                check!(faults, limits.max_limited.is_none_or(|max| limited <= max), "{limited} run at {seen:?}");
            }
        }
        for (id, story) in stories.iter().filter(|_| is_complete) {
            let Some(end) = records.get(id) else {
                faults.push(format!("task {id} has events, and no record: {story:?}"));
                continue;
            };
            let is_right = (story.spawned, story.ended) == (1, Some(end.outcome()))
                && story.started == u32::from(end.attempts() > 0)
                && (story.failed == end.attempts() || story.failed + 1 == end.attempts() || end.attempts() == 0);
            check!(faults, is_right, "the events are {story:?}, and the record is {end:?}");
        }
        if is_complete {
            for id in records.keys().filter(|id| **id != OBSERVER) {
                check!(faults, stories.contains_key(id), "task {id} has no events");
            }
        }
    }

    /// All readers have read the same of one number.
    fn readers_agree(&self, faults: &mut Vec<String>) {
        let mut all = BTreeMap::new();
        for seen in self.readings.iter().flat_map(|reading| &reading.seen) {
            let first = all.entry(seen.sequence).or_insert(seen);
            check!(faults, *first == seen, "one reader has {first:?}, another one {seen:?}");
        }
    }
}

//! [`OutcomeCounts`] and [`TaskStats`]: the counters of a manager.

use std::{fmt, ops::Sub};

use serde::Serialize;

use super::outcome::TaskOutcome;

/// Counts of ended tasks, one for each [`TaskOutcome`].
///
/// The difference of two counts is the count of the tasks that ended in between:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let tasks = agentflow::BackgroundTaskManager::new();
/// let before = tasks.stats().outcomes;
/// tasks.create_task(async {}).spawn()?.await?;
/// let ended = tasks.stats().outcomes - before;
/// assert_eq!((ended.completed, ended.total()), (1, 1));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OutcomeCounts {
    /// Tasks that ended [`Completed`](TaskOutcome::Completed).
    pub completed: u64,
    /// Tasks that ended [`Failed`](TaskOutcome::Failed).
    pub failed: u64,
    /// Tasks that ended [`Panicked`](TaskOutcome::Panicked).
    pub panicked: u64,
    /// Tasks that ended [`TimedOut`](TaskOutcome::TimedOut).
    pub timed_out: u64,
    /// Tasks that ended [`Cancelled`](TaskOutcome::Cancelled).
    pub cancelled: u64,
    /// Tasks that ended [`Aborted`](TaskOutcome::Aborted).
    pub aborted: u64,
    /// Tasks that ended [`Evicted`](TaskOutcome::Evicted).
    pub evicted: u64,
}

impl OutcomeCounts {
    /// Returns the number of ended tasks, whatever their outcome.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.iter().map(|(_, count)| count).sum()
    }

    /// Counts one more task with this outcome.
    pub(super) fn count(&mut self, outcome: TaskOutcome) {
        *match outcome {
            TaskOutcome::Completed => &mut self.completed,
            TaskOutcome::Failed => &mut self.failed,
            TaskOutcome::Panicked => &mut self.panicked,
            TaskOutcome::TimedOut => &mut self.timed_out,
            TaskOutcome::Cancelled => &mut self.cancelled,
            TaskOutcome::Aborted => &mut self.aborted,
            TaskOutcome::Evicted => &mut self.evicted,
        } += 1;
    }

    /// Returns each outcome with its count, completed tasks first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (TaskOutcome, u64)> + use<> {
        [
            (TaskOutcome::Completed, self.completed),
            (TaskOutcome::Failed, self.failed),
            (TaskOutcome::Panicked, self.panicked),
            (TaskOutcome::TimedOut, self.timed_out),
            (TaskOutcome::Cancelled, self.cancelled),
            (TaskOutcome::Aborted, self.aborted),
            (TaskOutcome::Evicted, self.evicted),
        ]
        .into_iter()
    }
}

/// Subtracts earlier counts of the same manager. Counts that are not earlier overflow, as integers do.
impl Sub for OutcomeCounts {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            completed: self.completed - earlier.completed,
            failed: self.failed - earlier.failed,
            panicked: self.panicked - earlier.panicked,
            timed_out: self.timed_out - earlier.timed_out,
            cancelled: self.cancelled - earlier.cancelled,
            aborted: self.aborted - earlier.aborted,
            evicted: self.evicted - earlier.evicted,
        }
    }
}

/// A manager's counters, read at one moment: `spawned` is always `active` plus the
/// [total](OutcomeCounts::total) of `outcomes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TaskStats {
    /// Tasks that were accepted.
    pub spawned: u64,
    /// Tasks that have not ended.
    pub active: u64,
    /// The active tasks that wait for their [delay](crate::task::TaskBuilder::delay) to end; they are not in `queued`.
    pub delayed: u64,
    /// The active tasks that are queued.
    pub queued: u64,
    /// Tasks that ended, by outcome.
    pub outcomes: OutcomeCounts,
    /// Attempts beyond a task's first.
    pub retries: u64,
    /// Spawns that were refused with a [`SpawnError`](crate::task::SpawnError); they are not in `spawned`.
    pub rejected: u64,
}

/// Writes a line such as `12 spawned: 3 active, 8 completed, 1 timed out; 2 retries; 1 rejected`, without the counts that
/// are zero.
impl fmt::Display for TaskStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} spawned: {} active", self.spawned, self.active)?;
        match (self.delayed, self.queued) {
            (0, 0) => {}
            (0, queued) => write!(f, " ({queued} queued)")?,
            (delayed, 0) => write!(f, " ({delayed} delayed)")?,
            (delayed, queued) => write!(f, " ({delayed} delayed, {queued} queued)")?,
        }
        for (outcome, count) in self.outcomes.iter().filter(|(_, count)| *count > 0) {
            write!(f, ", {count} {outcome}")?;
        }
        match self.retries {
            0 => {}
            1 => f.write_str("; 1 retry")?,
            retries => write!(f, "; {retries} retries")?,
        }
        if self.rejected > 0 {
            write!(f, "; {} rejected", self.rejected)?;
        }
        Ok(())
    }
}

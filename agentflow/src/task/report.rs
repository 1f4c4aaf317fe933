//! [`CloseReport`], [`CancelReport`] and [`WaitTimeout`]: the results of ending all tasks, and of waiting for them.

use std::{fmt, time::Duration};

use serde::Serialize;

use super::{
    info::{FinishedTask, TaskInfo},
    outcome::TaskOutcome,
    stats::OutcomeCounts,
};

/// The number of lines that a report prints at most, and of tasks that a list in one line does.
pub(crate) const MAX_PRINTED: usize = 20;

/// The result of [closing](crate::BackgroundTaskManager::close) a manager.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct CloseReport {
    /// The tasks that ended since closing began, by outcome, whatever ended them.
    pub outcomes: OutcomeCounts,
    /// The tasks that were cancelled or aborted because the bound was over, in the order of their ends.
    pub unfinished: Vec<FinishedTask>,
    /// The tasks that still run: blocking ones, those that block their thread, and those that closed the manager
    /// themselves, with the tasks that are queued behind their keys.
    pub still_running: Vec<TaskInfo>,
    /// The time from the first call of `close` until the first report. Serialized as seconds.
    #[serde(with = "crate::seconds")]
    pub elapsed: Duration,
}

impl CloseReport {
    /// Returns whether every task ended by itself: none was cancelled because the bound was over, and none still runs.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.unfinished.is_empty() && self.still_running.is_empty()
    }
}

/// One line for the counts, and one for each task that is unfinished or still runs: 20 lines at most, of which the last
/// one then counts the other tasks. All of them are in the fields.
impl fmt::Display for CloseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_lines(f, MAX_PRINTED)
    }
}

impl CloseReport {
    /// Writes the report in at most this many lines, which are two or more.
    pub(crate) fn write_lines(&self, f: &mut fmt::Formatter<'_>, max: usize) -> fmt::Result {
        write!(f, "closed in {:.1?}", self.elapsed)?;
        for (outcome, count) in self.outcomes.iter() {
            // The number of completed tasks is of interest even if there are none.
            match outcome {
                TaskOutcome::Completed => write!(f, ": {count} {outcome}")?,
                _ if count > 0 => write!(f, ", {count} {outcome}")?,
                _ => {}
            }
        }
        let tasks = self.unfinished.len() + self.still_running.len();
        let printed = if tasks < max { tasks } else { max - 2 };
        for task in self.unfinished.iter().take(printed) {
            write!(f, "\n  unfinished: {task}")?;
        }
        let printed_running = printed.saturating_sub(self.unfinished.len());
        for task in &self.still_running[..printed_running] {
            write!(f, "\n  still running: {task}")?;
        }
        if printed < tasks {
            write!(f, "\n  … and {} more", Grouped(tasks - printed))?;
            match self.still_running.len() - printed_running {
                0 => {}
                1 => f.write_str(", of which 1 still runs")?,
                count => write!(f, ", of which {} still run", Grouped(count))?,
            }
        }
        Ok(())
    }
}

/// The result of [`cancel_all`](crate::BackgroundTaskManager::cancel_all).
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct CancelReport {
    /// The tasks that ended, oldest first. A task that ended by itself has its own outcome.
    pub ended: Vec<FinishedTask>,
    /// The tasks that still run: blocking ones, and those that block their thread.
    pub still_running: Vec<TaskInfo>,
}

/// Writes a line such as `2 ended: send #1 (cancelled after 0.1s), …; 1 still runs: crunch #2 (for 3.0s)`, with
/// 20 tasks of each at most.
impl fmt::Display for CancelReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ended", self.ended.len())?;
        if !self.ended.is_empty() {
            f.write_str(": ")?;
            write_list(f, &self.ended)?;
        }
        match self.still_running.len() {
            0 => return Ok(()),
            1 => f.write_str("; 1 still runs: ")?,
            count => write!(f, "; {count} still run: ")?,
        }
        write_list(f, &self.still_running)
    }
}

/// The error of a [bounded wait](crate::BackgroundTaskManager::wait_for) that was over before the tasks had ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WaitTimeout {
    /// The tasks that still ran, oldest first.
    pub still_running: Vec<TaskInfo>,
}

/// Writes a line such as `2 background tasks still run: upload #7 (for 1.2s), send #9 (for 0.3s)`, with 20 tasks at most.
impl fmt::Display for WaitTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.still_running.len() {
            1 => write!(f, "1 background task still runs: ")?,
            count => write!(f, "{count} background tasks still run: ")?,
        }
        write_list(f, &self.still_running)
    }
}

impl std::error::Error for WaitTimeout {}

fn write_list(f: &mut fmt::Formatter<'_>, items: &[impl fmt::Display]) -> fmt::Result {
    for (index, item) in items.iter().take(MAX_PRINTED).enumerate() {
        let comma = if index > 0 { ", " } else { "" };
        write!(f, "{comma}{item}")?;
    }
    match items.len().saturating_sub(MAX_PRINTED) {
        0 => Ok(()),
        more => write!(f, ", … and {} more", Grouped(more)),
    }
}

/// Formats a number with its digits in groups of three, such as `9,702`.
struct Grouped(usize);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 1_000 { self.0.fmt(f) } else { write!(f, "{},{:03}", Grouped(self.0 / 1_000), self.0 % 1_000) }
    }
}

//! [`Ledger`]: the expected number of tasks of each outcome.

use agentflow::task::{TaskOutcome, TaskStats};

use crate::kind::Kind;

/// All outcomes of a task.
pub(crate) const OUTCOMES: [TaskOutcome; 6] = [
    TaskOutcome::Completed,
    TaskOutcome::Failed,
    TaskOutcome::Panicked,
    TaskOutcome::TimedOut,
    TaskOutcome::Cancelled,
    TaskOutcome::Aborted,
];

/// The spawned tasks and their expected outcomes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ledger([u64; OUTCOMES.len()]);

impl Ledger {
    /// Records the spawn of a task of this kind.
    pub(crate) fn add(&mut self, kind: Kind) {
        for (outcome, count) in kind.outcomes() {
            for (known, total) in OUTCOMES.iter().zip(&mut self.0) {
                if known == outcome {
                    *total += count;
                }
            }
        }
    }

    pub(crate) fn spawned(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Returns each outcome with the expected and the actual number of tasks.
    pub(crate) fn beside(&self, stats: &TaskStats) -> Vec<(TaskOutcome, u64, u64)> {
        let counted = counted(stats);
        OUTCOMES.into_iter().zip(self.0).zip(counted).map(|((outcome, due), counted)| (outcome, due, counted)).collect()
    }
}

/// Returns the counters in the order of [`OUTCOMES`].
fn counted(stats: &TaskStats) -> [u64; OUTCOMES.len()] {
    [
        stats.outcomes.completed,
        stats.outcomes.failed,
        stats.outcomes.panicked,
        stats.outcomes.timed_out,
        stats.outcomes.cancelled,
        stats.outcomes.aborted,
    ]
}

/// Returns true if every spawned task is either active or has ended.
pub(crate) fn is_consistent(stats: &TaskStats) -> bool {
    stats.spawned == stats.active + counted(stats).iter().sum::<u64>()
}

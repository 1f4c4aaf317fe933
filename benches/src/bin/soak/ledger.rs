//! [`Ledger`]: how many tasks must have ended how.

use agentflow::task::{TaskOutcome, TaskStats};

use crate::kind::Kind;

/// How a task can end.
pub(crate) const OUTCOMES: [TaskOutcome; 6] = [
    TaskOutcome::Completed,
    TaskOutcome::Failed,
    TaskOutcome::Panicked,
    TaskOutcome::TimedOut,
    TaskOutcome::Cancelled,
    TaskOutcome::Aborted,
];

/// What was spawned, and how it is to end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ledger([u64; OUTCOMES.len()]);

impl Ledger {
    /// A task of this kind was spawned.
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

    /// Each outcome, how many tasks must have it, and how many have.
    pub(crate) fn beside(&self, stats: &TaskStats) -> Vec<(TaskOutcome, u64, u64)> {
        let counted = counted(stats);
        OUTCOMES.into_iter().zip(self.0).zip(counted).map(|((outcome, due), counted)| (outcome, due, counted)).collect()
    }
}

/// In the order of [`OUTCOMES`].
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

/// Whether every task that was spawned is active or has ended, and none is both.
pub(crate) fn is_consistent(stats: &TaskStats) -> bool {
    stats.spawned == stats.active + counted(stats).iter().sum::<u64>()
}

//! What agentflow costs beside the same work written by hand.
//!
//! [`chain`], [`group`], [`spawn`], [`inspect`] and [`cancel`] are contests: one side is ours, the others are floors. The
//! criterion benches and the program that prints the table time the same contests. [`memory`] counts bytes and
//! allocations instead.

pub mod allocator;
pub mod cancel;
pub mod chain;
pub mod group;
pub mod inspect;
pub mod measure;
pub mod memory;
pub mod row;
mod runtime;
pub mod spawn;

pub use measure::{Contest, Effort, Side};
pub use row::{Bar, Row, Unit};

/// How much work the contests are about.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// How many tasks are spawned and cancelled at once.
    pub tasks: u64,
    /// How many tasks are active while somebody looks at them.
    pub active: u64,
}

impl Scale {
    /// The scale of the figures that count.
    pub const FULL: Self = Self { tasks: 100_000, active: 10_000 };
    /// Enough to see that it runs.
    pub const QUICK: Self = Self { tasks: 2_000, active: 1_000 };
}

/// All contests.
#[must_use]
pub fn contests(scale: Scale) -> Vec<Contest> {
    [chain::contests(), group::contests(), spawn::contests(scale), inspect::contests(scale), cancel::contests(scale)]
        .into_iter()
        .flatten()
        .collect()
}

//! The costs of agentflow beside the same work written by hand.
//!
//! [`chain`], [`group`], [`flow`], [`spawn`], [`inspect`] and [`cancel`] are contests: one side is agentflow, the others are
//! baselines. The criterion benches and the program that prints the table time the same contests. [`memory`] counts
//! bytes and allocations instead.

pub mod allocator;
pub mod cancel;
pub mod chain;
pub mod flow;
pub mod group;
pub mod inspect;
pub mod measure;
pub mod memory;
pub mod row;
mod runtime;
pub mod spawn;

pub use measure::{Contest, Effort, Side};
pub use row::{Bar, Row, Unit};

/// The amount of work in the contests.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// The number of tasks that are spawned and cancelled at once.
    pub tasks: u64,
    /// The number of tasks that are active during look-ups.
    pub active: u64,
}

impl Scale {
    /// The scale for meaningful figures.
    pub const FULL: Self = Self { tasks: 100_000, active: 10_000 };
    /// The scale of a smoke test.
    pub const QUICK: Self = Self { tasks: 2_000, active: 1_000 };
}

/// Returns all contests.
#[must_use]
pub fn contests(scale: Scale) -> Vec<Contest> {
    [
        chain::contests(),
        group::contests(),
        flow::contests(),
        spawn::contests(scale),
        inspect::contests(scale),
        cancel::contests(scale),
    ]
    .into_iter()
    .flatten()
    .collect()
}

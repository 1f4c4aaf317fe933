//! [`Suspects`]: what was there when a process died, and runs again.

use std::collections::BTreeMap;

use super::super::run::may_resume;

/// The number of runs and tasks of living owners that have been there at deaths of a process, by the number of deaths.
#[derive(Debug, Default)]
pub(super) struct Suspects(BTreeMap<u32, usize>);

impl Suspects {
    /// Counts the crashes of runs and tasks that run.
    pub(super) fn new(crashes: impl Iterator<Item = u32>) -> Self {
        let mut suspects = Self::default();
        crashes.for_each(|crashes| suspects.add(crashes));
        suspects
    }

    pub(super) fn add(&mut self, crashes: u32) {
        if crashes > 0 {
            *self.0.entry(crashes).or_default() += 1;
        }
    }

    pub(super) fn may_resume(&self, crashes: u32) -> bool {
        may_resume(crashes, self.0.range(crashes..).map(|(_, count)| count).sum())
    }
}

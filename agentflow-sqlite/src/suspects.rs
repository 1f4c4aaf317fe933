//! [`Suspects`]: the runs and tasks that were there when a process died, and run again.

use std::collections::BTreeMap;

use agentflow::store::{OwnerId, may_resume};

use crate::{
    failure::Failure,
    transaction::Transaction,
    value::{self, get},
};

/// The number of runs and tasks of living owners that have crashes, by the number of crashes.
#[derive(Debug)]
pub(crate) struct Suspects(BTreeMap<u32, u64>);

impl Suspects {
    pub(crate) fn of(tx: &Transaction<'_>) -> Result<Self, Failure> {
        let counted = tx.all(
            "SELECT crashes, owner, count(*) AS number FROM runs WHERE crashes > 0 AND status = 'running'
                 GROUP BY crashes, owner
             UNION ALL
             SELECT crashes, owner, count(*) FROM tasks WHERE crashes > 0 AND status = 'running'
                 GROUP BY crashes, owner",
            [],
            |row| Ok((row.get::<_, u32>("crashes")?, get::<OwnerId>(row, "owner")?, value::count(row, "number")?)),
        )?;
        let mut suspects = Self(BTreeMap::new());
        for (crashes, owner, number) in counted {
            if tx.is_alive(owner)? {
                *suspects.0.entry(crashes).or_default() += number;
            }
        }
        Ok(suspects)
    }

    pub(crate) fn add(&mut self, crashes: u32) {
        if crashes > 0 {
            *self.0.entry(crashes).or_default() += 1;
        }
    }

    /// Returns whether a run or a task with so many crashes may run beside those that run already.
    pub(crate) fn may_resume(&self, crashes: u32) -> bool {
        let others: u64 = self.0.range(crashes..).map(|(_, number)| number).sum();
        may_resume(crashes, usize::try_from(others).unwrap_or(usize::MAX))
    }
}

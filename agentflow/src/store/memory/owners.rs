//! [`Owners`]: the openings of a store, and their leases.

use std::{collections::BTreeMap, time::Duration};

use super::super::{id::OwnerId, value::Timestamp};

/// The owners that have joined and not left.
#[derive(Debug, Default)]
pub(super) struct Owners(BTreeMap<OwnerId, Lease>);

#[derive(Debug)]
struct Lease {
    renewed_at: Timestamp,
    until: Timestamp,
}

impl Owners {
    pub(super) fn join(&mut self, owner: OwnerId, lease: Duration, now: Timestamp) {
        self.0.insert(owner, Lease { renewed_at: now, until: now.after(lease) });
    }

    /// Renews a lease. Returns whether the owner is there.
    pub(super) fn renew(&mut self, owner: OwnerId, lease: Duration, now: Timestamp) -> bool {
        let is_there = self.0.contains_key(&owner);
        if is_there {
            self.join(owner, lease, now);
        }
        is_there
    }

    pub(super) fn leave(&mut self, owner: OwnerId) {
        self.0.remove(&owner);
    }

    pub(super) fn is_alive(&self, owner: OwnerId, now: Timestamp) -> bool {
        self.0.get(&owner).is_some_and(|lease| now < lease.until)
    }

    /// Returns the time from `since` until the last sign of life of an owner.
    pub(super) fn lived_since(&self, owner: OwnerId, since: Timestamp) -> Duration {
        self.0.get(&owner).map_or(Duration::ZERO, |lease| lease.renewed_at.since(since))
    }
}

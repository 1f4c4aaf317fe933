//! [`Clock`]: the clock of a store in memory.

use std::time::Duration;

use tokio::time::Instant;

use super::super::value::Timestamp;

/// A clock that starts at the system's time, goes on with tokio's clock and can be moved forward. It never goes back, and
/// gives each transaction a time of its own, so that "newest first" has no ties.
#[derive(Debug)]
pub(super) struct Clock {
    started_at: Timestamp,
    started: Instant,
    advanced: Duration,
    last: Timestamp,
}

impl Clock {
    pub(super) fn new() -> Self {
        let started_at = Timestamp::now();
        Self { started_at, started: Instant::now(), advanced: Duration::ZERO, last: started_at }
    }

    /// Returns the present time.
    pub(super) fn now(&self) -> Timestamp {
        let elapsed = Instant::now().saturating_duration_since(self.started);
        self.started_at.after(elapsed.saturating_add(self.advanced))
    }

    /// Returns the time of a new transaction, which is later than that of the one before.
    pub(super) fn tick(&mut self) -> Timestamp {
        let next = self.last.after(Duration::from_micros(1));
        // A clock that stands still is moved, so that it measures the times between transactions rightly.
        self.advance(next.since(self.now()));
        self.last = self.now();
        self.last
    }

    /// Moves the clock forward.
    pub(super) fn advance(&mut self, duration: Duration) {
        self.advanced = self.advanced.saturating_add(duration);
    }
}

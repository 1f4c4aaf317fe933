//! [`StoredRetry`]: a retry policy as data.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use serde::{Deserialize, Serialize};

/// A [`RetryPolicy`](super::RetryPolicy) as data, as it is stored with a durable task.
///
/// The next delay follows from it and the number of failed attempts alone, so that a process that has just started goes
/// on where another one ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct StoredRetry {
    pub(super) retries: u32,
    pub(super) backoff: Option<Duration>,
    pub(super) factor: f32,
    pub(super) max_delay: Duration,
    pub(super) jitter: bool,
    pub(super) max_total: Option<Duration>,
}

impl StoredRetry {
    pub(super) fn new(retries: u32) -> Self {
        let max_delay = Duration::from_mins(1);
        Self { retries, backoff: None, factor: 2.0, max_delay, jitter: false, max_total: None }
    }

    /// Returns the delay before the next attempt, or `None` if there is no further one.
    ///
    /// `failed` is the number of attempts that have failed, and `since_first` is the time since the first one began.
    pub(crate) fn delay(&self, failed: u32, since_first: Duration) -> Option<Duration> {
        if failed > self.retries {
            return None;
        }
        let delay = self.backoff.map(|first| self.backoff_after(first, failed)).unwrap_or_default();
        // Give up now rather than begin an attempt past the limit.
        let in_time = self.max_total.is_none_or(|total| since_first.saturating_add(delay) <= total);
        in_time.then_some(delay)
    }

    fn backoff_after(&self, first: Duration, failed: u32) -> Duration {
        let steps = i32::try_from(failed.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = first.as_secs_f64() * f64::from(self.factor.max(1.0)).powi(steps);
        let delay = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX).min(self.max_delay);
        let jitter = || ExponentialBuilder::new().with_min_delay(delay).with_jitter().build().next();
        let delay = if self.jitter { jitter().unwrap_or(delay).min(self.max_delay) } else { delay };
        // The delay is rounded, because the factor is a float and makes it inexact by some nanoseconds.
        let micros = u64::try_from((delay.as_nanos() + 500) / 1_000).unwrap_or(u64::MAX);
        Duration::from_micros(micros)
    }
}

/// A policy without retries, as that of a task which sets none.
impl Default for StoredRetry {
    fn default() -> Self {
        Self::new(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn growing(retries: u32) -> StoredRetry {
        let max_delay = Duration::from_hours(24);
        StoredRetry { backoff: Some(Duration::from_secs(1)), factor: 3.0, max_delay, ..StoredRetry::new(retries) }
    }

    #[test]
    fn a_delay_follows_from_the_number_of_failed_attempts() {
        let seconds = |failed| growing(100).delay(failed, Duration::ZERO).map(|delay| delay.as_secs());
        assert_eq!([1, 2, 3, 4].map(seconds), [1, 3, 9, 27].map(Some));
        assert_eq!(seconds(100), Some(24 * 60 * 60), "the delay reached its maximum and did not overflow");
        assert_eq!(seconds(101), None);
    }

    #[test]
    fn no_attempt_begins_after_the_total_time() {
        let retry = StoredRetry { max_total: Some(Duration::from_secs(10)), ..growing(100) };
        assert_eq!(retry.delay(2, Duration::from_secs(7)), Some(Duration::from_secs(3)));
        assert_eq!(retry.delay(2, Duration::from_secs(8)), None);
    }

    #[test]
    fn jitter_adds_up_to_the_delay_itself() {
        let retry = StoredRetry { jitter: true, ..growing(100) };
        for _ in 0..100 {
            let delay = retry.delay(2, Duration::ZERO).map(|delay| delay.as_secs_f64());
            assert!(delay.is_some_and(|delay| (3.0..=6.0).contains(&delay)), "{delay:?}");
        }
    }

    #[test]
    fn a_policy_is_the_same_after_it_was_stored() {
        let retry = StoredRetry { jitter: true, max_total: Some(Duration::MAX), ..growing(3) };
        let json = serde_json::to_string(&retry).expect("JSON");
        assert_eq!(serde_json::from_str::<StoredRetry>(&json).expect("a policy"), retry);
    }
}

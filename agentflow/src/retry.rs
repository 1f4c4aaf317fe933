//! [`RetryPolicy`]: the number and the delays of retries, and the errors that are retried.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::Instant;

/// Returns whether an error is retried.
type RetryPredicate = Arc<dyn Fn(&(dyn Error + 'static)) -> bool + Send + Sync>;

/// A policy for retries: their number, their delays, and the errors that are retried.
///
/// A number converts into a policy: `retry: 3` makes up to three further attempts after the first one, without delays.
///
/// ```
/// use std::time::Duration;
/// use agentflow::RetryPolicy;
///
/// let policy = RetryPolicy::new(5)
///     .backoff(Duration::from_millis(100))
///     .max_delay(Duration::from_secs(5))
///     .jitter()
///     .when(|error| error.is::<std::io::Error>());
/// # let _ = policy;
/// ```
#[derive(Clone)]
#[must_use = "a policy does nothing until it is set for a node or a task"]
pub struct RetryPolicy {
    retries: u32,
    backoff: Option<Duration>,
    factor: f32,
    max_delay: Duration,
    jitter: bool,
    max_total: Option<Duration>,
    when: Option<RetryPredicate>,
}

impl RetryPolicy {
    /// Creates a policy of up to `retries` further attempts after the first one, without delays and after any error.
    pub fn new(retries: u32) -> Self {
        let max_delay = Duration::from_mins(1);
        Self { retries, backoff: None, factor: 2.0, max_delay, jitter: false, max_total: None, when: None }
    }

    /// Sets an exponential backoff: a delay of `first` before the first retry, and twice the previous delay before each
    /// further one.
    pub fn backoff(mut self, first: Duration) -> Self {
        self.backoff = Some(first);
        self
    }

    /// Sets the factor by which the delay grows from retry to retry. The default is 2; values below 1 count as 1.
    pub fn factor(mut self, factor: f32) -> Self {
        self.factor = if factor >= 1.0 { factor } else { 1.0 };
        self
    }

    /// Sets the maximum delay. The default is 60 s.
    pub fn max_delay(mut self, max: Duration) -> Self {
        self.max_delay = max;
        self
    }

    /// Adds a random duration to each delay, up to the delay itself; the sum is at most [`max_delay`](Self::max_delay).
    /// This keeps many attempts that failed at the same time from being retried at the same time.
    pub fn jitter(mut self) -> Self {
        self.jitter = true;
        self
    }

    /// Sets the time after the start of the first attempt from which on no further attempt begins. There is no limit by
    /// default. An attempt that has begun is not interrupted; use a timeout for that.
    pub fn max_total(mut self, total: Duration) -> Self {
        self.max_total = Some(total);
        self
    }

    /// Retries only errors for which `retryable` returns `true`. A panic and a timeout are errors too
    /// ([`Panicked`](crate::error::Panicked), [`AttemptTimedOut`](crate::error::AttemptTimedOut)).
    pub fn when(mut self, retryable: impl Fn(&(dyn Error + 'static)) -> bool + Send + Sync + 'static) -> Self {
        self.when = Some(Arc::new(retryable));
        self
    }

    /// Returns the delays before the retries of an attempt that begins now.
    pub(crate) fn delays(&self) -> Delays<'_> {
        let waits = self.backoff.map(|first| {
            let builder = ExponentialBuilder::new()
                .with_min_delay(first)
                .with_max_delay(self.max_delay)
                .with_factor(self.factor)
                .without_max_times();
            if self.jitter { builder.with_jitter().build() } else { builder.build() }
        });
        let until = self.max_total.and_then(|total| Instant::now().checked_add(total));
        Delays { policy: self, left: self.retries, until, waits }
    }
}

/// The remaining retries of a policy.
pub(crate) struct Delays<'a> {
    policy: &'a RetryPolicy,
    left: u32,
    /// The latest start of an attempt.
    until: Option<Instant>,
    waits: Option<backon::ExponentialBackoff>,
}

impl Delays<'_> {
    /// Returns the delay before the next attempt, or `None` if there is none.
    pub(crate) fn after(&mut self, error: &(dyn Error + 'static)) -> Option<Duration> {
        if self.policy.when.as_ref().is_some_and(|retryable| !retryable(error)) {
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        let wait = self.waits.as_mut().and_then(Iterator::next).unwrap_or_default();
        // The backoff applies its maximum neither to the first delay nor to the jitter.
        let wait = wait.min(self.policy.max_delay);
        // The delay is rounded, because the factor is a float and makes it inexact by some nanoseconds.
        let micros = u64::try_from((wait.as_nanos() + 500) / 1_000).unwrap_or(u64::MAX);
        let wait = Duration::from_micros(micros);
        // Give up now rather than sleep past the deadline.
        let in_time = self.until.is_none_or(|until| Instant::now().checked_add(wait).is_some_and(|next| next <= until));
        in_time.then_some(wait)
    }
}

impl From<u32> for RetryPolicy {
    fn from(retries: u32) -> Self {
        Self::new(retries)
    }
}

impl fmt::Debug for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryPolicy")
            .field("retries", &self.retries)
            .field("backoff", &self.backoff)
            .field("factor", &self.factor)
            .field("max_delay", &self.max_delay)
            .field("jitter", &self.jitter)
            .field("max_total", &self.max_total)
            .finish_non_exhaustive()
    }
}

/// Writes `retry 3`, the form in pictures of a graph.
impl fmt::Display for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "retry {}", self.retries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_stay_round() {
        let policy = RetryPolicy::new(4).backoff(Duration::from_millis(20)).max_delay(Duration::from_millis(100));
        let mut delays = policy.delays();
        let error = std::io::Error::other("busy");
        let waits: Vec<_> = std::iter::from_fn(|| delays.after(&error)).map(|wait| wait.as_micros()).collect();
        assert_eq!(waits, [20_000, 40_000, 80_000, 100_000]);
    }
}

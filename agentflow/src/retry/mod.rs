//! [`RetryPolicy`]: the number and the delays of retries, and the errors that are retried.

mod stored;

use std::{error::Error, fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

pub(crate) use stored::StoredRetry;

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
    data: StoredRetry,
    when: Option<RetryPredicate>,
}

impl RetryPolicy {
    /// Creates a policy of up to `retries` further attempts after the first one, without delays and after any error.
    pub fn new(retries: u32) -> Self {
        Self { data: StoredRetry::new(retries), when: None }
    }

    /// Sets an exponential backoff: a delay of `first` before the first retry, and twice the previous delay before each
    /// further one.
    pub fn backoff(mut self, first: Duration) -> Self {
        self.data.backoff = Some(first);
        self
    }

    /// Sets the factor by which the delay grows from retry to retry. The default is 2; values below 1 count as 1.
    pub fn factor(mut self, factor: f32) -> Self {
        self.data.factor = if factor >= 1.0 { factor } else { 1.0 };
        self
    }

    /// Sets the maximum delay. The default is 60 s.
    pub fn max_delay(mut self, max: Duration) -> Self {
        self.data.max_delay = max;
        self
    }

    /// Adds a random duration to each delay, up to the delay itself; the sum is at most [`max_delay`](Self::max_delay).
    /// This keeps many attempts that failed at the same time from being retried at the same time.
    pub fn jitter(mut self) -> Self {
        self.data.jitter = true;
        self
    }

    /// Sets the time after the start of the first attempt from which on no further attempt begins. There is no limit by
    /// default. An attempt that has begun is not interrupted; use a timeout for that.
    pub fn max_total(mut self, total: Duration) -> Self {
        self.data.max_total = Some(total);
        self
    }

    /// Retries only errors for which `retryable` returns `true`. A panic and a timeout are errors too
    /// ([`Panicked`](crate::error::Panicked), [`AttemptTimedOut`](crate::error::AttemptTimedOut)).
    ///
    /// A [durable task](crate::task::Task) cannot have such a policy, because a function is not stored.
    pub fn when(mut self, retryable: impl Fn(&(dyn Error + 'static)) -> bool + Send + Sync + 'static) -> Self {
        self.when = Some(Arc::new(retryable));
        self
    }

    /// Returns the policy as data, or `None` if it has a [predicate](Self::when), which is none.
    pub(crate) fn stored(&self) -> Option<StoredRetry> {
        self.when.is_none().then(|| self.data.clone())
    }

    /// Returns the delays before the retries of an attempt that began at this time.
    pub(crate) fn delays(&self, began: Instant) -> Delays<'_> {
        Delays { policy: self, failed: 0, began }
    }
}

/// The remaining retries of a policy.
pub(crate) struct Delays<'a> {
    policy: &'a RetryPolicy,
    /// The number of attempts that have failed.
    failed: u32,
    /// The start of the first attempt.
    began: Instant,
}

impl Delays<'_> {
    /// Returns the delay before the next attempt, or `None` if there is none.
    pub(crate) fn after(&mut self, error: &(dyn Error + 'static)) -> Option<Duration> {
        if self.policy.when.as_ref().is_some_and(|retryable| !retryable(error)) {
            return None;
        }
        self.failed = self.failed.saturating_add(1);
        self.policy.data.delay(self.failed, self.began.elapsed())
    }
}

impl From<u32> for RetryPolicy {
    fn from(retries: u32) -> Self {
        Self::new(retries)
    }
}

impl fmt::Debug for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StoredRetry { retries, backoff, factor, max_delay, jitter, max_total } = &self.data;
        f.debug_struct("RetryPolicy")
            .field("retries", retries)
            .field("backoff", backoff)
            .field("factor", factor)
            .field("max_delay", max_delay)
            .field("jitter", jitter)
            .field("max_total", max_total)
            .finish_non_exhaustive()
    }
}

/// Writes `retry 3`, the form in pictures of a graph.
impl fmt::Display for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "retry {}", self.data.retries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_stay_round() {
        let policy = RetryPolicy::new(4).backoff(Duration::from_millis(20)).max_delay(Duration::from_millis(100));
        let mut delays = policy.delays(Instant::now());
        let error = std::io::Error::other("busy");
        let waits: Vec<_> = std::iter::from_fn(|| delays.after(&error)).map(|wait| wait.as_micros()).collect();
        assert_eq!(waits, [20_000, 40_000, 80_000, 100_000]);
    }
}

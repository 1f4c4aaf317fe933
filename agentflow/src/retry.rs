//! [`RetryPolicy`]: how often, when and after which errors to try again.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::Instant;

type Judge = Arc<dyn Fn(&(dyn Error + 'static)) -> bool + Send + Sync>;

/// How often, when and after which errors to try again.
///
/// A number is a policy too: `retry: 3` tries up to three times more after the first attempt, without a pause.
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
#[must_use = "a policy does nothing until a node or a task has it"]
pub struct RetryPolicy {
    retries: u32,
    backoff: Option<Duration>,
    factor: f32,
    max_delay: Duration,
    jitter: bool,
    max_total: Option<Duration>,
    when: Option<Judge>,
}

impl RetryPolicy {
    /// Up to `retries` more attempts after the first, at once and after any error.
    pub fn new(retries: u32) -> Self {
        let max_delay = Duration::from_mins(1);
        Self { retries, backoff: None, factor: 2.0, max_delay, jitter: false, max_total: None, when: None }
    }

    /// Waits before a retry: `first` before the first one, twice as long before each further one.
    pub fn backoff(mut self, first: Duration) -> Self {
        self.backoff = Some(first);
        self
    }

    /// How much longer each wait is than the one before; 2 unless told. Less than 1 counts as 1.
    pub fn factor(mut self, factor: f32) -> Self {
        self.factor = if factor >= 1.0 { factor } else { 1.0 };
        self
    }

    /// No wait is longer than this; 60 s unless told.
    pub fn max_delay(mut self, max: Duration) -> Self {
        self.max_delay = max;
        self
    }

    /// Adds a random part to each wait, up to its own length and up to [`max_delay`](Self::max_delay), so that many who
    /// failed at once don't come back at once.
    pub fn jitter(mut self) -> Self {
        self.jitter = true;
        self
    }

    /// No attempt begins later than this after the first one did; no limit unless told. An attempt that has begun is not
    /// cut short: that is what timeouts are for.
    pub fn max_total(mut self, total: Duration) -> Self {
        self.max_total = Some(total);
        self
    }

    /// Tries again only after errors for which this holds; a panic and a timeout are errors too
    /// ([`Panicked`](crate::error::Panicked), [`AttemptTimedOut`](crate::error::AttemptTimedOut)).
    pub fn when(mut self, retryable: impl Fn(&(dyn Error + 'static)) -> bool + Send + Sync + 'static) -> Self {
        self.when = Some(Arc::new(retryable));
        self
    }

    /// The waits before the retries, for the first attempt beginning now.
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

/// What is left of a policy's attempts.
pub(crate) struct Delays<'a> {
    policy: &'a RetryPolicy,
    left: u32,
    /// When the last attempt may begin.
    until: Option<Instant>,
    waits: Option<backon::ExponentialBackoff>,
}

impl Delays<'_> {
    /// How long to wait before the next attempt; `None` if there is to be none.
    pub(crate) fn after(&mut self, error: &(dyn Error + 'static)) -> Option<Duration> {
        if self.policy.when.as_ref().is_some_and(|retryable| !retryable(error)) {
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        let wait = self.waits.as_mut().and_then(Iterator::next).unwrap_or_default();
        // The maximum is the backoff's for what it adds only: not for the first wait, and not for the jitter.
        let wait = wait.min(self.policy.max_delay);
        // Its factor is a float, and what it multiplies is off by some nanoseconds.
        let micros = u64::try_from((wait.as_nanos() + 500) / 1_000).unwrap_or(u64::MAX);
        let wait = Duration::from_micros(micros);
        // Rather no wait than one after which there is no attempt.
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

/// `retry 3`, as a picture of the graph shows it.
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

//! [`TaskPolicy`]: what is stored with a durable task beside its arguments.

use std::{borrow::Cow, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::retry::StoredRetry;

/// The retries, timeouts and log fields of a durable task, as they are stored with it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskPolicy {
    #[serde(skip_serializing_if = "is_default")]
    retry: StoredRetry,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt_timeout: Option<Duration>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    context: Map<String, Value>,
}

fn is_default(retry: &StoredRetry) -> bool {
    *retry == StoredRetry::default()
}

impl TaskPolicy {
    pub(crate) fn set_retry(&mut self, retry: StoredRetry) {
        self.retry = retry;
    }

    pub(crate) fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = Some(timeout);
    }

    pub(crate) fn set_attempt_timeout(&mut self, timeout: Duration) {
        self.attempt_timeout = Some(timeout);
    }

    pub(crate) fn set_context(&mut self, key: Cow<'static, str>, value: Value) {
        self.context.insert(key.into_owned(), value);
    }

    /// Returns the delay before the next attempt, or `None` if there is no further one.
    ///
    /// `failed` is the number of attempts that have failed, and `since_first` is the time since the first one began.
    #[must_use]
    pub fn next_attempt(&self, failed: u32, since_first: Duration) -> Option<Duration> {
        self.retry.delay(failed, since_first)
    }

    /// Returns the time that the task may take from its first claim on, while a live owner has it.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// Returns the time that each attempt may take.
    #[must_use]
    pub fn attempt_timeout(&self) -> Option<Duration> {
        self.attempt_timeout
    }

    /// Returns the fields for the log.
    #[must_use]
    pub fn context(&self) -> &Map<String, Value> {
        &self.context
    }
}

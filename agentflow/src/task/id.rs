//! [`TaskId`]: the identity of a task.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Identifies a task within its manager. Ids count up in the order of spawning and are never reused.
///
/// A text such as `17` or `#17`, from a log line or a URL, parses as an id. A manager without a task of that id
/// [cancels](crate::BackgroundTaskManager::cancel) nothing.
///
/// ```
/// use agentflow::task::TaskId;
///
/// assert_eq!("#17".parse(), Ok(TaskId::from(17)));
/// assert_eq!(TaskId::from(17).to_string(), "17");
/// assert_eq!(
///     "upload".parse::<TaskId>().unwrap_err().to_string(),
///     "`upload` is not a task id: it must be a number, such as `17` or `#17`",
/// );
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(pub(super) u64);

impl TaskId {
    /// Returns the id as a number, starting at 1.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u64> for TaskId {
    fn from(id: u64) -> Self {
        Self(id)
    }
}

/// The error for a text that is not a task id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a task id: it must be a number, such as `17` or `#17`")]
pub struct InvalidTaskId(String);

impl FromStr for TaskId {
    type Err = InvalidTaskId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix('#').unwrap_or(text);
        // `u64` also parses a sign, which no id is written with.
        let id = digits.parse().ok().filter(|_| !digits.starts_with('+'));
        id.map(Self).ok_or_else(|| InvalidTaskId(text.to_owned()))
    }
}

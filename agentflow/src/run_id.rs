//! [`RunId`]: the identity of a run.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The id of one run of a graph, a UUID of version 7. Ids are ordered by the time of their creation.
///
/// ```
/// use agentflow::RunId;
///
/// let id = RunId::new();
/// assert_eq!(id.to_string().parse(), Ok(id));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(Uuid);

impl RunId {
    /// Creates a new id, which is greater than every id created earlier in this process.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "every call returns another id, so none is a default")]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// Returns the id as a number, in the order of ids.
    #[must_use]
    pub const fn as_u128(self) -> u128 {
        self.0.as_u128()
    }

    /// Returns the id with this number.
    #[must_use]
    pub const fn from_u128(number: u128) -> Self {
        Self(Uuid::from_u128(number))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The error for a text that is not a run id (a UUID such as `0198c5f0-6d1e-7b3a-8f64-3a1f8f0c9d11`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a run id: it must be a UUID")]
pub struct InvalidRunId(String);

impl FromStr for RunId {
    type Err = InvalidRunId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_| InvalidRunId(text.to_owned()))
    }
}

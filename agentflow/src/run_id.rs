//! [`RunId`]: which run something belongs to.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Names one run of a graph; ordered by the time it was made (UUID version 7).
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
    /// A new id, later than every id made before it in this process.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "each call gives another id: that is no default")]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The text is not a run id (a UUID such as `0198c5f0-6d1e-7b3a-8f64-3a1f8f0c9d11`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a run id: it must be a UUID")]
pub struct InvalidRunId(String);

impl FromStr for RunId {
    type Err = InvalidRunId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_| InvalidRunId(text.to_owned()))
    }
}

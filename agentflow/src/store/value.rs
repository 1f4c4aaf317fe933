//! [`Stored`] and [`Timestamp`]: a value and a point in time, as a store holds them.

use std::{
    any::Any,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A value in a store: its JSON, or the value itself in a store that
/// [keeps values](super::Capabilities::keeps_values).
#[derive(Clone)]
pub enum Stored {
    /// The JSON text of the value.
    Json(Bytes),
    /// The value itself.
    Shared(Arc<dyn Any + Send + Sync>),
}

impl Stored {
    /// Returns the JSON text, or `None` for a value that is kept as it is.
    #[must_use]
    pub fn json(&self) -> Option<&Bytes> {
        match self {
            Self::Json(json) => Some(json),
            Self::Shared(_) => None,
        }
    }

    /// Returns the length of the JSON text in bytes; zero for a value that is kept as it is.
    #[must_use]
    pub fn len(&self) -> usize {
        self.json().map_or(0, Bytes::len)
    }

    /// Returns whether there is no JSON text.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Vec<u8>> for Stored {
    fn from(json: Vec<u8>) -> Self {
        Self::Json(json.into())
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(json) => f.write_str(&String::from_utf8_lossy(json)),
            Self::Shared(_) => f.write_str("Shared(..)"),
        }
    }
}

/// A point in time on the store's clock, in microseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Returns the present time of the system's clock.
    #[must_use]
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// Creates a time from microseconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Returns the microseconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Returns the time `duration` later, or the latest one that can be represented.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// Returns the time `duration` earlier, or the earliest one that can be represented.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// Returns the time since `earlier`; zero if that is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or_default())
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        match time.duration_since(UNIX_EPOCH) {
            Ok(since) => Self(micros(since)),
            Err(before) => Self(micros(before.duration()).saturating_neg()),
        }
    }
}

impl From<Timestamp> for SystemTime {
    fn from(Timestamp(micros): Timestamp) -> Self {
        let distance = Duration::from_micros(micros.unsigned_abs());
        let time = if micros < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
        time.unwrap_or(UNIX_EPOCH)
    }
}

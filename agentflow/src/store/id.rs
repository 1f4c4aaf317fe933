//! The ids of what a store holds.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $Id:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $Id(Uuid);

        impl $Id {
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

            /// Returns an id that is greater than `other`, and otherwise a new one. A store gives the checkpoints of a
            /// thread growing ids in this way, also when its clock goes back.
            #[must_use]
            pub fn after(other: Option<Self>) -> Self {
                let new = Self::new();
                match other {
                    Some(other) if new <= other => Self::from_u128(other.as_u128().wrapping_add(1)),
                    _ => new,
                }
            }
        }

        impl fmt::Display for $Id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $Id {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self).map_err(|_| InvalidId { text: text.to_owned() })
            }
        }
    };
}

uuid_id! {
    /// The id of a checkpoint. The ids of one thread grow in the order in which its checkpoints were made.
    CheckpointId
}

uuid_id! {
    /// The id of a question, the same for as long as the question is open.
    QuestionId
}

uuid_id! {
    /// The id of one opening of a store by an app. It is never used again.
    OwnerId
}

uuid_id! {
    /// The id of a durable task.
    StoredTaskId
}

/// The error for a text that is not an id: ids are UUIDs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id: it must be a UUID")]
#[non_exhaustive]
pub struct InvalidId {
    /// The text.
    pub text: String,
}

/// The id of a thread: 1 to 255 bytes of UTF-8.
///
/// ```
/// use agentflow::store::ThreadId;
///
/// let id: ThreadId = "case-17".parse()?;
/// assert_eq!(id.as_str(), "case-17");
/// assert!("".parse::<ThreadId>().is_err());
/// # Ok::<_, agentflow::store::InvalidThreadId>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ThreadId(Arc<str>);

impl ThreadId {
    /// The greatest length of an id, in bytes.
    pub const MAX_LEN: usize = 255;

    /// Returns the id as a text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ThreadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The error for a text that is not a thread id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a thread id has 1 to 255 bytes, and this one has {len}")]
#[non_exhaustive]
pub struct InvalidThreadId {
    /// The length of the text, in bytes.
    pub len: usize,
}

impl FromStr for ThreadId {
    type Err = InvalidThreadId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.len() {
            1..=Self::MAX_LEN => Ok(Self(text.into())),
            len => Err(InvalidThreadId { len }),
        }
    }
}

impl TryFrom<String> for ThreadId {
    type Error = InvalidThreadId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ThreadId> for String {
    fn from(id: ThreadId) -> Self {
        id.as_str().to_owned()
    }
}

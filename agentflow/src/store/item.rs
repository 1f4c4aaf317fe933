//! Stored items: JSON values under a namespace and a key, which threads share.

use std::time::Duration;

use serde_json::{Map, Value};

use super::value::Timestamp;

/// A stored item.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ItemRow {
    /// The namespace, from the outermost name to the innermost.
    pub namespace: Vec<String>,
    /// The key.
    pub key: String,
    /// The value.
    pub value: Value,
    /// The version, from 1, which grows with each write.
    pub version: u64,
    /// The time of the first write.
    pub created_at: Timestamp,
    /// The time of the last write.
    pub updated_at: Timestamp,
    /// The time at which the item expires.
    pub expires_at: Option<Timestamp>,
}

impl ItemRow {
    /// Creates the row of a new item.
    #[must_use]
    pub fn new(namespace: Vec<String>, key: String, value: Value, now: Timestamp) -> Self {
        Self { namespace, key, value, version: 1, created_at: now, updated_at: now, expires_at: None }
    }
}

/// A request to write an item.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PutItem {
    /// The namespace.
    pub namespace: Vec<String>,
    /// The key.
    pub key: String,
    /// The value.
    pub value: Value,
    /// The time after which the item is gone.
    pub time_to_live: Option<Duration>,
    /// The version that the item must have; `Some(0)` if there must be none.
    pub expected_version: Option<u64>,
}

impl PutItem {
    /// Creates a request to write an item, whatever its version.
    #[must_use]
    pub fn new(namespace: Vec<String>, key: impl Into<String>, value: Value) -> Self {
        Self { namespace, key: key.into(), value, time_to_live: None, expected_version: None }
    }
}

/// The outcome of writing an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PutOutcome {
    /// The item was written and has this version.
    Written(u64),
    /// The item has this version, not the expected one; zero if there is no item.
    OtherVersion(u64),
}

/// A selection of items, the most recently changed first.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ItemFilter {
    /// Selects the items whose namespace begins with these names.
    pub namespace_prefix: Vec<String>,
    /// Selects the items whose value has these fields.
    pub fields: Map<String, Value>,
    /// The number of items to leave out at the start.
    pub offset: usize,
    /// The greatest number of items; `None` for all.
    pub limit: Option<usize>,
}

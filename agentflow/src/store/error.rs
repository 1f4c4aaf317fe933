//! [`StoreError`]: the error of an operation of a store.

use std::{error::Error as StdError, fmt};

/// The error of an operation of a store. It names the operation and says whether a repetition may succeed.
#[derive(Debug)]
pub struct StoreError {
    operation: &'static str,
    kind: StoreErrorKind,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The kind of a [`StoreError`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The store cannot be reached, is locked, or refused a transaction that may succeed when it is repeated.
    Unavailable,
    /// The caller owns the run, the task or the lease no longer: another owner has taken it over, or it has ended.
    Fenced,
    /// The disk is full.
    Full,
    /// The store cannot be written to.
    ReadOnly,
    /// The store's data, or a value in it, cannot be read.
    Corrupt,
    /// The store was written by a newer version of this library.
    TooNew,
    /// The store does not offer the operation; see [`Store::capabilities`](super::Store::capabilities).
    Unsupported,
    /// The request cannot be fulfilled, whatever the state of the store: an id that exists, or a value that is too large.
    Invalid,
    /// Any other error.
    Other,
}

impl StoreError {
    /// Creates the error of an operation.
    #[must_use]
    pub fn new(operation: &'static str, kind: StoreErrorKind) -> Self {
        Self { operation, kind, source: None }
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// Creates the error of a request by an owner that has lost what it writes to.
    #[must_use]
    pub fn fenced(operation: &'static str) -> Self {
        Self::new(operation, StoreErrorKind::Fenced)
    }

    /// Creates the error of an operation that a store does not offer.
    #[must_use]
    pub fn unsupported(operation: &'static str) -> Self {
        Self::new(operation, StoreErrorKind::Unsupported)
    }

    /// Returns the name of the operation, that of the method of [`Store`](super::Store).
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// Returns the kind of the error.
    #[must_use]
    pub fn kind(&self) -> &StoreErrorKind {
        &self.kind
    }

    /// Returns whether the same operation may succeed when it is repeated.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.kind == StoreErrorKind::Unavailable
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, kind, .. } = self;
        write!(f, "the store's operation `{operation}` failed: ")?;
        f.write_str(match kind {
            StoreErrorKind::Unavailable => "the store is not available",
            StoreErrorKind::Fenced => "another owner has taken over, or it has ended",
            StoreErrorKind::Full => "the disk is full",
            StoreErrorKind::ReadOnly => "the store cannot be written to",
            StoreErrorKind::Corrupt => "the store's data cannot be read",
            StoreErrorKind::TooNew => "the store was written by a newer version",
            StoreErrorKind::Unsupported => "the store does not offer it",
            StoreErrorKind::Invalid => "the request is not valid",
            StoreErrorKind::Other => "an unexpected error",
        })?;
        // The cause is part of the text only here, because users read it most of all.
        self.source.as_ref().map_or(Ok(()), |source| write!(f, ": {source}"))
    }
}

impl StdError for StoreError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        // The source's own text is a part of this error's text.
        self.source.as_ref().and_then(|source| source.source())
    }
}

//! [`EncodeError`] and [`DecodeError`]: the errors of writing and reading a value that a store keeps.

use std::fmt;

/// The error of a value that cannot be written as JSON without a loss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodeError {
    pub(crate) type_name: &'static str,
    pub(crate) path: String,
    pub(crate) kind: EncodeErrorKind,
}

/// The kind of an [`EncodeError`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeErrorKind {
    /// A number is infinite or not a number, which JSON does not have.
    #[error("the number is not finite")]
    NotFinite,
    /// An integer does not fit into 64 bits.
    #[error("the number is beyond 64 bits")]
    TooLarge,
    /// Arrays and objects are more than 127 levels deep, and could not be read again.
    #[error("arrays and objects are more than 127 levels deep")]
    TooDeep,
    /// Any other error of the value's own `Serialize`, and a map with keys that are not strings.
    #[error("{0}")]
    Custom(Box<str>),
    /// The value's own `Serialize` panicked.
    #[error("it panicked: {0}")]
    Panicked(Box<str>),
}

impl EncodeError {
    /// Returns the kind of the error.
    #[must_use]
    pub fn kind(&self) -> &EncodeErrorKind {
        &self.kind
    }

    /// Returns the path of the value that cannot be written, such as `scores.ada[1]`. It is empty for the whole.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { type_name, path, kind } = self;
        write!(f, "`{type_name}` cannot be written as JSON{}: {kind}", At(path))
    }
}

impl std::error::Error for EncodeError {}

/// The error of a stored value that the code cannot read.
#[derive(Debug)]
pub struct DecodeError {
    pub(crate) type_name: &'static str,
    pub(crate) path: String,
    pub(crate) kind: DecodeErrorKind,
}

/// The kind of a [`DecodeError`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The JSON is not that of a value of the type.
    #[error("{0}")]
    Json(serde_json::Error),
    /// The value's own `Deserialize`, or the migration, panicked.
    #[error("it panicked: {0}")]
    Panicked(Box<str>),
    /// The state was stored by newer code.
    #[error("it has version {stored}, and this code knows up to version {known}")]
    Newer {
        /// The version of the stored state.
        stored: u32,
        /// The version in `#[state(version = ..)]`.
        known: u32,
    },
    /// The function in `#[state(migrate = ..)]` failed.
    #[error("it has version {stored}, and its migration failed: {error}")]
    Migration {
        /// The version of the stored state.
        stored: u32,
        /// The function's error.
        error: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl DecodeError {
    /// Returns the kind of the error.
    #[must_use]
    pub fn kind(&self) -> &DecodeErrorKind {
        &self.kind
    }

    /// Returns the path of the value that cannot be read, such as `scores.ada[1]`. It is empty for the whole.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { type_name, path, kind } = self;
        write!(f, "`{type_name}` cannot be read from JSON{}: {kind}", At(path))
    }
}

impl std::error::Error for DecodeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The error's own text has that of its cause.
        match &self.kind {
            DecodeErrorKind::Json(error) => error.source(),
            DecodeErrorKind::Migration { error, .. } => error.source(),
            DecodeErrorKind::Panicked(_) | DecodeErrorKind::Newer { .. } => None,
        }
    }
}

/// Writes the path, if there is one.
struct At<'a>(&'a str);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ", at `{}`", self.0) }
    }
}

//! [`Failure`]: the error of an operation before it has the operation's name.

use std::{error::Error as StdError, io, sync::Arc};

use agentflow::store::{StoreError, StoreErrorKind, delta::DeltaError};
use rusqlite::ErrorCode;

/// The error of an operation. It is cheap to clone, because all operations of a transaction fail with it.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    kind: StoreErrorKind,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// A cause that is a text.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Reason(String);

impl Failure {
    pub(crate) fn new(kind: StoreErrorKind, reason: impl Into<String>) -> Self {
        Self { kind, source: Some(Arc::new(Reason(reason.into()))) }
    }

    /// The caller's run or task is not live, or its owner is gone.
    pub(crate) fn fenced() -> Self {
        Self { kind: StoreErrorKind::Fenced, source: None }
    }

    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Invalid, reason)
    }

    pub(crate) fn corrupt(reason: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Corrupt, reason)
    }

    /// A value of a type that this crate does not know.
    pub(crate) fn unsupported(reason: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Unsupported, reason)
    }

    pub(crate) fn closed() -> Self {
        Self::new(StoreErrorKind::Other, "the store is closed")
    }

    /// The transaction was undone because of another operation.
    pub(crate) fn undone() -> Self {
        Self::new(StoreErrorKind::Unavailable, "another operation has undone the transaction")
    }

    pub(crate) fn may_pass(&self) -> bool {
        self.kind == StoreErrorKind::Unavailable
    }

    pub(crate) fn into_error(self, operation: &'static str) -> StoreError {
        let error = StoreError::new(operation, self.kind);
        match self.source {
            Some(source) => error.with_source(source),
            None => error,
        }
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self { kind: kind_of(&error), source: Some(Arc::new(error)) }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreErrorKind::Full,
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => StoreErrorKind::ReadOnly,
            io::ErrorKind::Interrupted | io::ErrorKind::ResourceBusy => StoreErrorKind::Unavailable,
            _ => StoreErrorKind::Other,
        };
        Self { kind, source: Some(Arc::new(error)) }
    }
}

impl From<DeltaError> for Failure {
    fn from(error: DeltaError) -> Self {
        Self { kind: StoreErrorKind::Corrupt, source: Some(Arc::new(error)) }
    }
}

impl From<serde_json::Error> for Failure {
    /// Only JSON that the store itself has written is read, so that an error means a file that was changed.
    fn from(error: serde_json::Error) -> Self {
        Self { kind: StoreErrorKind::Corrupt, source: Some(Arc::new(error)) }
    }
}

fn kind_of(error: &rusqlite::Error) -> StoreErrorKind {
    use rusqlite::{Error, ffi};

    match error {
        Error::SqliteFailure(failure, _) => match failure.code {
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::CannotOpen
            | ErrorCode::OutOfMemory
            | ErrorCode::OperationInterrupted => StoreErrorKind::Unavailable,
            ErrorCode::DiskFull => StoreErrorKind::Full,
            ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied => {
                StoreErrorKind::ReadOnly
            }
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => StoreErrorKind::Corrupt,
            ErrorCode::SystemIoFailure => match failure.extended_code {
                ffi::SQLITE_IOERR_SHORT_READ | ffi::SQLITE_IOERR_CORRUPTFS => StoreErrorKind::Corrupt,
                _ => StoreErrorKind::Other,
            },
            ErrorCode::TooBig => StoreErrorKind::Invalid,
            _ => StoreErrorKind::Other,
        },
        // The tables are there, and a column does not have what this crate has written.
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::InvalidColumnType(..)
        | Error::Utf8Error(..) => StoreErrorKind::Corrupt,
        _ => StoreErrorKind::Other,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use rusqlite::{Connection, OpenFlags};

    use super::*;

    #[test]
    fn a_write_to_a_connection_that_only_reads_is_read_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE t(a)").unwrap();
        let connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let error = connection.execute_batch("INSERT INTO t VALUES (1)").unwrap_err();
        assert_eq!(Failure::from(error).kind, StoreErrorKind::ReadOnly);
    }

    #[test]
    fn an_error_of_the_operating_system_keeps_its_meaning() {
        let kind = |kind: io::ErrorKind| Failure::from(io::Error::from(kind)).kind;
        assert_eq!(kind(io::ErrorKind::StorageFull), StoreErrorKind::Full);
        assert_eq!(kind(io::ErrorKind::PermissionDenied), StoreErrorKind::ReadOnly);
        assert_eq!(kind(io::ErrorKind::Other), StoreErrorKind::Other);
    }
}

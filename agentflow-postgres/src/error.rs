//! The kinds of errors, as the server and the pool report them.

use std::{error::Error as StdError, io};

use agentflow::store::{StoreError, StoreErrorKind};
use deadpool_postgres::PoolError;
use tokio_postgres::{Error, error::SqlState};

/// Text that is the cause of an error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Cause(pub(crate) String);

/// Returns the error of a request that can never be fulfilled.
pub(crate) fn invalid(operation: &'static str, reason: impl Into<String>) -> StoreError {
    StoreError::new(operation, StoreErrorKind::Invalid).with_source(Cause(reason.into()))
}

/// Returns the error of a value that cannot be read.
pub(crate) fn corrupt(operation: &'static str, reason: impl Into<Box<dyn StdError + Send + Sync>>) -> StoreError {
    StoreError::new(operation, StoreErrorKind::Corrupt).with_source(reason)
}

/// Returns the error of an operation on a store that was closed.
pub(crate) fn closed(operation: &'static str) -> StoreError {
    StoreError::new(operation, StoreErrorKind::Other).with_source(Cause("the store is closed".to_owned()))
}

/// Returns the error of an operation for which the pool has no connection.
pub(crate) fn pool(operation: &'static str, error: PoolError) -> StoreError {
    match error {
        PoolError::Backend(error) => server(operation, &error),
        PoolError::Closed | PoolError::NoRuntimeSpecified => {
            StoreError::new(operation, StoreErrorKind::Other).with_source(error)
        }
        PoolError::Timeout(_) | PoolError::PostCreateHook(_) => {
            StoreError::new(operation, StoreErrorKind::Unavailable).with_source(error)
        }
    }
}

/// Returns the error of a statement, or of a connection.
pub(crate) fn server(operation: &'static str, error: &Error) -> StoreError {
    let kind = error.code().map_or_else(|| kind_of_connection(error), kind_of_code);
    StoreError::new(operation, kind).with_source(Cause(text(error)))
}

/// Returns the text of an error with its causes, because that of the library does not have them.
fn text(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    if let Some(detail) = error.as_db_error().and_then(|error| error.detail()) {
        text = format!("{text} ({detail})");
    }
    text
}

/// Returns the kind of an error that is not the server's.
fn kind_of_connection(error: &Error) -> StoreErrorKind {
    match error.source() {
        // The connection is closed, or a time limit has passed.
        None => StoreErrorKind::Unavailable,
        Some(cause) => match cause.downcast_ref::<io::Error>().map(io::Error::kind) {
            // A message that is too large for the protocol.
            Some(io::ErrorKind::InvalidInput) => StoreErrorKind::Invalid,
            Some(_) => StoreErrorKind::Unavailable,
            None => StoreErrorKind::Other,
        },
    }
}

/// Returns the kind of an error of the server.
fn kind_of_code(code: &SqlState) -> StoreErrorKind {
    let passing = [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::QUERY_CANCELED,
        SqlState::TOO_MANY_CONNECTIONS,
        SqlState::OUT_OF_MEMORY,
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::IN_FAILED_SQL_TRANSACTION,
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
        // Two processes have made the same row at the same time. A repetition finds it.
        SqlState::UNIQUE_VIOLATION,
    ];
    if passing.contains(code) {
        return StoreErrorKind::Unavailable;
    }
    match (code.code(), code.code().get(..2)) {
        // `idle_session_timeout`
        ("57P05", _) | (_, Some("08" | "40")) => StoreErrorKind::Unavailable,
        ("53100", _) => StoreErrorKind::Full,
        ("25006", _) => StoreErrorKind::ReadOnly,
        ("XX001" | "XX002", _) => StoreErrorKind::Corrupt,
        (_, Some("22" | "23" | "54")) => StoreErrorKind::Invalid,
        _ => StoreErrorKind::Other,
    }
}

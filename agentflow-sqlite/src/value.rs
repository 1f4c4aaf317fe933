//! Values in the form in which a column has them: ids, names of states, times, JSON.

use std::time::Duration;

use agentflow::{
    RunId,
    store::{
        CancelKind, CheckpointId, KeyPolicy, OwnerId, QuestionId, QuestionStatus, Rest, RunStatus, Source, Stored,
        StoredTaskId, TaskStatus, Timestamp,
    },
};
use bytes::Bytes;
use rusqlite::{
    Row,
    types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef},
};

use crate::failure::Failure;

/// A value of the library in a column.
///
/// Ids are blobs of 16 bytes, whose order is that of the ids; states are their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sql<T>(pub(crate) T);

macro_rules! ids {
    ($($Id:ident),*) => {
        $(
            impl ToSql for Sql<$Id> {
                fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                    Ok(self.0.as_u128().to_be_bytes().to_vec().into())
                }
            }

            impl FromSql for Sql<$Id> {
                fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                    <[u8; 16]>::column_result(value).map(|bytes| Self($Id::from_u128(u128::from_be_bytes(bytes))))
                }
            }
        )*
    };
}

ids!(CheckpointId, QuestionId, OwnerId, StoredTaskId, RunId);

macro_rules! names {
    ($($Enum:ident { $($Variant:ident = $name:literal),* $(,)? })*) => {
        $(
            impl ToSql for Sql<$Enum> {
                #[allow(unreachable_patterns, reason = "not all of the enums will grow")]
                fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                    match self.0 {
                        $($Enum::$Variant => Ok(ToSqlOutput::Borrowed(ValueRef::Text($name.as_bytes()))),)*
                        other => {
                            let text = format!("this version cannot store {other:?}");
                            Err(rusqlite::Error::ToSqlConversionFailure(text.into()))
                        }
                    }
                }
            }

            impl FromSql for Sql<$Enum> {
                fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                    match value.as_str()? {
                        $($name => Ok(Self($Enum::$Variant)),)*
                        other => {
                            let text = format!("`{other}` is no {}", stringify!($Enum));
                            Err(FromSqlError::Other(text.into()))
                        }
                    }
                }
            }
        )*
    };
}

names! {
    RunStatus {
        Queued = "queued", Running = "running", Done = "done", Waiting = "waiting", Failed = "failed",
        Cancelled = "cancelled",
    }
    CancelKind { Cancel = "cancel", Rollback = "rollback" }
    Rest { Idle = "idle", Paused = "paused", Failed = "failed" }
    Source { Input = "input", Loop = "loop", Update = "update", Fork = "fork" }
    QuestionStatus { Open = "open", Answered = "answered", Closed = "closed", Dropped = "dropped" }
    TaskStatus { Pending = "pending", Running = "running", Done = "done", Failed = "failed", Cancelled = "cancelled" }
    KeyPolicy { Skip = "skip", Replace = "replace", Queue = "queue" }
}

impl ToSql for Sql<Timestamp> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.as_micros().into())
    }
}

impl FromSql for Sql<Timestamp> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        i64::column_result(value).map(|micros| Self(Timestamp::from_micros(micros)))
    }
}

impl ToSql for Sql<Duration> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(i64::try_from(self.0.as_micros()).unwrap_or(i64::MAX).into())
    }
}

impl FromSql for Sql<Duration> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        i64::column_result(value).map(|micros| Self(Duration::from_micros(micros.try_into().unwrap_or_default())))
    }
}

/// Wraps an optional value.
pub(crate) fn optional<T>(value: Option<T>) -> Option<Sql<T>> {
    value.map(Sql)
}

/// Returns a value of the library in a column.
pub(crate) fn get<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<T>
where
    Sql<T>: FromSql,
{
    row.get::<_, Sql<T>>(column).map(|value| value.0)
}

/// Returns an optional value of the library in a column.
pub(crate) fn get_optional<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<T>>
where
    Sql<T>: FromSql,
{
    row.get::<_, Option<Sql<T>>>(column).map(|value| value.map(|value| value.0))
}

/// Returns a column that counts.
pub(crate) fn count(row: &Row<'_>, column: &str) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

pub(crate) fn bytes(row: &Row<'_>, column: &str) -> rusqlite::Result<Bytes> {
    row.get::<_, Vec<u8>>(column).map(Bytes::from)
}

pub(crate) fn stored(row: &Row<'_>, column: &str) -> rusqlite::Result<Stored> {
    bytes(row, column).map(Stored::Json)
}

/// Returns the JSON text of a value.
pub(crate) fn json(value: &Stored) -> Result<&[u8], Failure> {
    value.json().map(|json| &json[..]).ok_or_else(|| Failure::invalid("the store keeps JSON only"))
}

/// Returns a number that counts as SQLite's integer. Hashes lose nothing by it, and no other number is so great.
pub(crate) fn integer(number: u64) -> i64 {
    number.cast_signed()
}

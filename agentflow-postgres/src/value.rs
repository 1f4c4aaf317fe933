//! Values between Rust and SQL.
//!
//! Names, keys and texts are `bytea`, because `text` cannot hold every string (U+0000), compares by a locale, and depends on
//! the encoding of the database. Times are microseconds, which hold every [`Timestamp`].

use std::{sync::Arc, time::Duration};

use agentflow::{
    RunId,
    store::{
        CancelKind, CheckpointId, KeyPolicy, OwnerId, QuestionId, QuestionStatus, Rest, RunStatus, Source, StoreError,
        Stored, StoredTaskId, TaskStatus, ThreadId, ThreadStatus, Timestamp,
    },
};
use bytes::{Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio_postgres::{
    Row,
    types::{FromSql, IsNull, ToSql, Type, to_sql_checked},
};
use uuid::Uuid;

use crate::error;

/// An argument of a statement, with its type. Statements are not prepared, because a transaction pooler between the store
/// and the server gives every transaction another connection.
pub(crate) type Argument = (Box<dyn ToSql + Send + Sync>, Type);

/// Makes the arguments of a statement.
macro_rules! args {
    ($($value:expr),* $(,)?) => {
        vec![$($crate::value::argument($value)),*]
    };
}
pub(crate) use args;

/// Returns a value as an argument.
pub(crate) fn argument<T: Encode>(value: T) -> Argument {
    (Box::new(value.encode()), T::TYPE)
}

/// A value that can be an argument.
pub(crate) trait Encode {
    /// The value as the driver knows it.
    type Sql: ToSql + Send + Sync + 'static;
    /// The type of the value.
    const TYPE: Type;
    /// The type of an array of such values.
    const ARRAY: Type;

    fn encode(self) -> Self::Sql;
}

/// A value that can be read from a column.
pub(crate) trait Decode: Sized {
    /// The value as the driver knows it.
    type Sql: for<'a> FromSql<'a>;

    /// Returns `None` for a value that this library does not write.
    fn decode(sql: Self::Sql) -> Option<Self>;
}

/// Returns the value of a column.
pub(crate) fn field<T: Decode>(operation: &'static str, row: &Row, column: &str) -> Result<T, StoreError> {
    let sql = row.try_get(column).map_err(|error| error::corrupt(operation, error))?;
    let unknown = || error::corrupt(operation, error::Cause(format!("the column `{column}` has an unknown value")));
    T::decode(sql).ok_or_else(unknown)
}

/// Returns a column of the first row of a statement that returns one.
pub(crate) fn one<T: Decode>(operation: &'static str, rows: &[Row], column: &str) -> Result<T, StoreError> {
    let none = || error::corrupt(operation, error::Cause(format!("there is no row with the column `{column}`")));
    field(operation, rows.first().ok_or_else(none)?, column)
}

/// The bytes of an argument.
#[derive(Debug)]
pub(crate) struct Blob(Bytes);

impl ToSql for Blob {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::BYTEA
    }

    to_sql_checked!();
}

macro_rules! plain {
    ($($Rust:ty: $type:ident, $array:ident;)*) => {
        $(
            impl Encode for $Rust {
                type Sql = Self;
                const TYPE: Type = Type::$type;
                const ARRAY: Type = Type::$array;

                fn encode(self) -> Self {
                    self
                }
            }

            impl Decode for $Rust {
                type Sql = Self;

                fn decode(sql: Self) -> Option<Self> {
                    Some(sql)
                }
            }
        )*
    };
}

plain! {
    bool: BOOL, BOOL_ARRAY;
    i32: INT4, INT4_ARRAY;
    i64: INT8, INT8_ARRAY;
    Uuid: UUID, UUID_ARRAY;
}

macro_rules! convert {
    ($($Rust:ty, $Sql:ty: |$value:ident| $encode:expr, |$sql:ident| $decode:expr;)*) => {
        $(
            impl Encode for $Rust {
                type Sql = $Sql;
                const TYPE: Type = <$Sql as Encode>::TYPE;
                const ARRAY: Type = <$Sql as Encode>::ARRAY;

                fn encode(self) -> $Sql {
                    let $value = self;
                    $encode
                }
            }

            impl Decode for $Rust {
                type Sql = $Sql;

                fn decode($sql: $Sql) -> Option<Self> {
                    $decode
                }
            }
        )*
    };
}

convert! {
    CheckpointId, Uuid: |id| Uuid::from_u128(id.as_u128()), |sql| Some(Self::from_u128(sql.as_u128()));
    OwnerId, Uuid: |id| Uuid::from_u128(id.as_u128()), |sql| Some(Self::from_u128(sql.as_u128()));
    QuestionId, Uuid: |id| Uuid::from_u128(id.as_u128()), |sql| Some(Self::from_u128(sql.as_u128()));
    StoredTaskId, Uuid: |id| Uuid::from_u128(id.as_u128()), |sql| Some(Self::from_u128(sql.as_u128()));
    RunId, Uuid: |id| uuid_of_run(id), |sql| sql.to_string().parse().ok();
    Timestamp, i64: |time| time.as_micros(), |sql| Some(Self::from_micros(sql));
    // No budget is longer than 292,000 years.
    Duration, i64: |time| i64::try_from(time.as_micros()).unwrap_or(i64::MAX),
        |sql| u64::try_from(sql).ok().map(Self::from_micros);
    u32, i64: |number| number.into(), |sql| sql.try_into().ok();
    // Numbers above `i64::MAX` are hashes, of which only the bits count.
    u64, i64: |number| number.cast_signed(), |sql| Some(sql.cast_unsigned());
}

/// Returns the number of a run's id.
fn uuid_of_run(id: RunId) -> Uuid {
    // The text of an id is that of a UUID, so it can be read.
    id.to_string().parse().unwrap_or_default()
}

macro_rules! bytes {
    ($($Rust:ty: |$value:ident| $encode:expr;)*) => {
        $(
            impl Encode for $Rust {
                type Sql = Blob;
                const TYPE: Type = Type::BYTEA;
                const ARRAY: Type = Type::BYTEA_ARRAY;

                fn encode(self) -> Blob {
                    let $value = self;
                    Blob($encode)
                }
            }
        )*
    };
}

bytes! {
    Bytes: |bytes| bytes;
    Vec<u8>: |bytes| bytes.into();
    &str: |text| Bytes::copy_from_slice(text.as_bytes());
    String: |text| text.into();
    &Arc<str>: |text| Bytes::copy_from_slice(text.as_bytes());
    &ThreadId: |id| Bytes::copy_from_slice(id.as_str().as_bytes());
}

macro_rules! from_bytes {
    ($($Rust:ty: |$sql:ident| $decode:expr;)*) => {
        $(
            impl Decode for $Rust {
                type Sql = Vec<u8>;

                fn decode($sql: Vec<u8>) -> Option<Self> {
                    $decode
                }
            }
        )*
    };
}

from_bytes! {
    Bytes: |sql| Some(sql.into());
    Stored: |sql| Some(sql.into());
    String: |sql| Self::from_utf8(sql).ok();
    Arc<str>: |sql| String::from_utf8(sql).ok().map(Into::into);
    ThreadId: |sql| String::from_utf8(sql).ok()?.parse().ok();
}

/// A word of an enumeration, as SQL shows it.
macro_rules! words {
    ($($Enum:ty),*) => {
        $(
            impl Encode for $Enum {
                type Sql = String;
                const TYPE: Type = Type::TEXT;
                const ARRAY: Type = Type::TEXT_ARRAY;

                fn encode(self) -> String {
                    word(self)
                }
            }

            impl Decode for $Enum {
                type Sql = String;

                fn decode(sql: String) -> Option<Self> {
                    serde_json::from_value(Value::String(sql)).ok()
                }
            }
        )*
    };
}

words!(CancelKind, KeyPolicy, QuestionStatus, Rest, RunStatus, Source, TaskStatus, ThreadStatus);

/// Returns the word of a variant without fields.
fn word(variant: impl Serialize) -> String {
    match serde_json::to_value(variant) {
        Ok(Value::String(word)) => word,
        // These enumerations are written as strings.
        _ => String::new(),
    }
}

impl<T: Encode> Encode for Option<T> {
    type Sql = Option<T::Sql>;
    const TYPE: Type = T::TYPE;
    const ARRAY: Type = T::ARRAY;

    fn encode(self) -> Self::Sql {
        self.map(T::encode)
    }
}

impl<T: Decode> Decode for Option<T> {
    type Sql = Option<T::Sql>;

    fn decode(sql: Self::Sql) -> Option<Self> {
        match sql {
            Some(sql) => T::decode(sql).map(Some),
            None => Some(None),
        }
    }
}

/// An array.
pub(crate) struct Array<T>(pub(crate) Vec<T>);

impl<T> FromIterator<T> for Array<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self(items.into_iter().collect())
    }
}

impl<T: Decode> Decode for Array<T>
where
    Vec<T::Sql>: for<'a> FromSql<'a>,
{
    type Sql = Vec<T::Sql>;

    fn decode(sql: Self::Sql) -> Option<Self> {
        sql.into_iter().map(T::decode).collect::<Option<Vec<_>>>().map(Self)
    }
}

impl<T: Encode> Encode for Array<T> {
    type Sql = Vec<T::Sql>;
    const TYPE: Type = T::ARRAY;
    // There are no arrays of arrays.
    const ARRAY: Type = T::ARRAY;

    fn encode(self) -> Self::Sql {
        self.0.into_iter().map(T::encode).collect()
    }
}

/// Returns the JSON of a small value.
pub(crate) fn to_json(operation: &'static str, value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| error::invalid(operation, error.to_string()))
}

/// Reads a small value from JSON.
pub(crate) fn from_json<T: DeserializeOwned>(operation: &'static str, json: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(json).map_err(|error| error::corrupt(operation, error))
}

/// Returns the JSON of a value; a value that is kept as it is has none.
pub(crate) fn json(operation: &'static str, stored: &Stored) -> Result<Bytes, StoreError> {
    let shared = || error::invalid(operation, "the store keeps JSON, and the value is not JSON");
    stored.json().cloned().ok_or_else(shared)
}

/// Returns a number of rows as SQL takes it; `None` for all.
pub(crate) fn limit(number: Option<usize>) -> Option<i64> {
    number.map(count)
}

/// Returns a number of rows as SQL takes it.
pub(crate) fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Returns each field of an object as JSON of its own, in which objects have their keys in order, so that equal fields are
/// equal bytes. The database keeps a hash of each, in an index for searches.
pub(crate) fn labels(
    operation: &'static str,
    object: &serde_json::Map<String, Value>,
) -> Result<Array<Vec<u8>>, StoreError> {
    object
        .iter()
        .map(|(key, value)| to_json(operation, &(key, sorted(value))))
        .collect::<Result<Vec<_>, _>>()
        .map(Array)
}

/// Returns the value with the keys of all objects in order, also if another crate has `serde_json` keep their order.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            let mut fields: Vec<_> = object.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
            fields.sort_by(|(left, _), (right, _)| left.cmp(right));
            Value::Object(fields.into_iter().collect())
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

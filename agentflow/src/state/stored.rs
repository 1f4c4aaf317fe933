//! [`WriteUpdate`] and [`ReadUpdate`]: an update as a JSON object of the fields that it sets.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserializer, Serializer,
    de::{IgnoredAny, MapAccess, Visitor},
    ser::SerializeMap,
};

/// An update that is written by the names of its fields in JSON.
pub trait WriteUpdate {
    /// Writes the fields that are set.
    fn write<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error>;
}

/// An update that is read by the names of its fields in JSON.
pub trait ReadUpdate<'de>: Default {
    /// Reads the value of a field. Returns `false`, and reads nothing, if there is no such field.
    fn read<M: MapAccess<'de>>(&mut self, field: &str, map: &mut M) -> Result<bool, M::Error>;
}

/// Writes the fields that are set.
///
/// # Errors
///
/// Those of the serializer and of the values.
pub fn serialize<U: WriteUpdate, Z: Serializer>(update: &U, serializer: Z) -> Result<Z::Ok, Z::Error> {
    let mut map = serializer.serialize_map(None)?;
    update.write(&mut map)?;
    map.end()
}

/// Reads an update. A field that is not there is not set, and one that is unknown is ignored.
///
/// # Errors
///
/// Those of the deserializer and of the values.
pub fn deserialize<'de, U: ReadUpdate<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<U, D::Error> {
    deserializer.deserialize_map(Fields(PhantomData))
}

struct Fields<U>(PhantomData<U>);

impl<'de, U: ReadUpdate<'de>> Visitor<'de> for Fields<U> {
    type Value = U;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of the fields to change")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<U, M::Error> {
        let mut update = U::default();
        while let Some(field) = map.next_key::<String>()? {
            if !update.read(&field, &mut map)? {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(update)
    }
}

//! The fields of JSON objects by which lists are filtered.

use serde_json::{Map, Value};

/// Returns whether a JSON object has all of the given fields.
pub(super) fn has_fields(object: &Map<String, Value>, fields: &Map<String, Value>) -> bool {
    fields.iter().all(|(field, value)| object.get(field) == Some(value))
}

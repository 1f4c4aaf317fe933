//! [`Delta`]: the difference between two states, as JSON.
//!
//! The unit is the top-level field of a state's JSON object. A delta is written as an object, in which a key without
//! content is left out:
//!
//! ```json
//! {"set": {"title": "Owls"}, "append": {"notes": ["silent"]}, "remove": ["draft"]}
//! ```
//!
//! A state that is not an object is written whole: `{"whole": 17}`.
//!
//! ```
//! use agentflow::store::delta::{difference, fold};
//!
//! let old = br#"{"title":"Owls","notes":["nocturnal"]}"#;
//! let new = br#"{"title":"Owls","notes":["nocturnal","silent"]}"#;
//! let delta = difference(old, new)?.expect("the states differ");
//! assert_eq!(delta, br#"{"append":{"notes":["silent"]}}"#);
//!
//! let folded = fold(old, [&delta[..]])?;
//! assert_eq!(folded, br#"{"notes":["nocturnal","silent"],"title":"Owls"}"#);
//! # Ok::<_, agentflow::store::delta::DeltaError>(())
//! ```

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// The top-level fields of a JSON object, each with its value as it was written.
pub type Fields<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

/// The difference between a state and the one before it. [`difference`] finds it by comparing the two; a caller that knows
/// what changed builds it field by field.
#[derive(Debug, Default, Serialize)]
pub struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    whole: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    set: BTreeMap<&'a str, &'a RawValue>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    append: BTreeMap<&'a str, Cow<'a, RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    remove: Vec<&'a str>,
}

/// A delta as it is read.
#[derive(Deserialize)]
struct Stored<'a> {
    // An `Option` alone would read a state that is `null` as one that is not there.
    #[serde(borrow, default, deserialize_with = "present")]
    whole: Option<&'a RawValue>,
    #[serde(borrow, default)]
    set: Fields<'a>,
    #[serde(borrow, default)]
    append: Fields<'a>,
    #[serde(borrow, default)]
    remove: Vec<Cow<'a, str>>,
}

fn present<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// A snapshot or a delta that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeltaError {
    /// A state is not JSON.
    #[error("the state is not JSON")]
    State(#[source] serde_json::Error),
    /// A delta is not JSON, or has another form.
    #[error("delta {number} after the snapshot is not a delta")]
    Delta {
        /// The number of the delta after the snapshot, from 1.
        number: usize,
        /// The reason.
        #[source]
        source: serde_json::Error,
    },
    /// A delta changes the fields of a state that is not an object.
    #[error("delta {number} after the snapshot changes fields, and the state is not an object")]
    NotAnObject {
        /// The number of the delta after the snapshot, from 1.
        number: usize,
    },
    /// A delta appends to a field that is not an array, or is not there.
    #[error("delta {number} after the snapshot appends to the field `{field}`, which is not an array")]
    NotAnArray {
        /// The number of the delta after the snapshot, from 1.
        number: usize,
        /// The field.
        field: String,
    },
}

impl<'a> Delta<'a> {
    /// Creates a delta that changes nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a field to a value. Without the field before, the value adds it.
    pub fn set(&mut self, field: &'a str, value: &'a RawValue) -> &mut Self {
        self.set.insert(field, value);
        self
    }

    /// Appends items to the array of a field. `items` is an array too.
    pub fn append(&mut self, field: &'a str, items: &'a RawValue) -> &mut Self {
        self.append.insert(field, Cow::Borrowed(items));
        self
    }

    /// Removes a field.
    pub fn remove(&mut self, field: &'a str) -> &mut Self {
        self.remove.push(field);
        self
    }

    /// Returns whether the delta changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.whole.is_none() && self.set.is_empty() && self.append.is_empty() && self.remove.is_empty()
    }

    /// Returns the delta as JSON.
    #[must_use]
    #[allow(clippy::missing_panics_doc, reason = "the delta's keys are strings and its values are JSON already")]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a delta has only strings as keys and JSON as values")
    }
}

/// Returns the fields of a state, or `None` if its JSON is not an object. Of two fields with one name the last counts, as
/// everywhere in `serde_json`.
///
/// # Errors
///
/// [`DeltaError::State`] if the bytes are not JSON.
pub fn fields(state: &[u8]) -> Result<Option<Fields<'_>>, DeltaError> {
    if is_object(state) { serde_json::from_slice(state).map(Some).map_err(DeltaError::State) } else { Ok(None) }
}

/// Returns the delta that makes `new` of `old`, or `None` if they are equal.
///
/// Values are compared byte by byte, so both must have been written by one writer: the same value in another notation counts
/// as changed. An array whose former bytes are the beginning of the new ones was appended to.
///
/// # Errors
///
/// [`DeltaError::State`] if one of the two is not JSON.
pub fn difference(old: &[u8], new: &[u8]) -> Result<Option<Vec<u8>>, DeltaError> {
    if old == new {
        return Ok(None);
    }
    let (Some(old), Some(new)) = (fields(old)?, fields(new)?) else {
        let whole = serde_json::from_slice(new).map_err(DeltaError::State)?;
        return Ok(Some(Delta { whole: Some(whole), ..Delta::default() }.to_json()));
    };
    let delta = difference_of_fields(&old, &new);
    Ok((!delta.is_empty()).then(|| delta.to_json()))
}

/// Returns the delta that makes the fields `new` of the fields `old`; see [`difference`].
#[must_use]
pub fn difference_of_fields<'a>(old: &'a Fields<'_>, new: &'a Fields<'_>) -> Delta<'a> {
    let mut delta = Delta::new();
    for (field, value) in new {
        let before = old.get(field).map_or("", |before| before.get());
        if before == value.get() {
            continue;
        }
        // The items are a part of a valid array.
        match appended(before, value.get()).and_then(|items| RawValue::from_string(format!("[{items}]")).ok()) {
            Some(items) => {
                delta.append.insert(field, Cow::Owned(items));
            }
            None => {
                delta.set(field, value);
            }
        }
    }
    for field in old.keys().filter(|field| !new.contains_key(*field)) {
        delta.remove(field);
    }
    delta
}

/// Returns the state that the deltas make of a snapshot, the oldest delta first. The time is linear in the size of all.
///
/// # Errors
///
/// [`DeltaError`] if the snapshot or a delta cannot be read, or does not fit the others.
pub fn fold<'d>(snapshot: &[u8], deltas: impl IntoIterator<Item = &'d [u8]>) -> Result<Vec<u8>, DeltaError> {
    let mut state = Folded::of(snapshot)?;
    for (delta, number) in deltas.into_iter().zip(1..) {
        let stored = stored(delta).map_err(|source| DeltaError::Delta { number, source })?;
        state.apply(stored, number)?;
    }
    Ok(state.into_json())
}

/// Reads a delta. The derived code takes an array for a list of the fields, so that `[]` would be an empty delta.
fn stored(delta: &[u8]) -> serde_json::Result<Stored<'_>> {
    if is_object(delta) { serde_json::from_slice(delta) } else { Err(serde::de::Error::custom("not an object")) }
}

/// A state to which deltas are applied.
enum Folded {
    Object(BTreeMap<String, String>),
    Other(Vec<u8>),
}

impl Folded {
    fn of(state: &[u8]) -> Result<Self, DeltaError> {
        let Some(fields) = fields(state)? else {
            // It is read once, so that what comes out of a fold is JSON.
            let value: &RawValue = serde_json::from_slice(state).map_err(DeltaError::State)?;
            return Ok(Self::Other(value.get().into()));
        };
        let owned = fields.into_iter().map(|(field, value)| (field.into_owned(), value.get().to_owned()));
        Ok(Self::Object(owned.collect()))
    }

    fn apply(&mut self, delta: Stored<'_>, number: usize) -> Result<(), DeltaError> {
        if let Some(whole) = delta.whole {
            *self = Self::of(whole.get().as_bytes())?;
            return Ok(());
        }
        let Self::Object(fields) = self else { return Err(DeltaError::NotAnObject { number }) };
        for (field, value) in delta.set {
            fields.insert(field.into_owned(), value.get().to_owned());
        }
        for (field, items) in delta.append {
            let is_appended = fields
                .get_mut(&*field)
                .is_some_and(|array| items_of(items.get()).is_some_and(|new| append(array, new)));
            if !is_appended {
                return Err(DeltaError::NotAnArray { number, field: field.into_owned() });
            }
        }
        for field in delta.remove {
            fields.remove(&*field);
        }
        Ok(())
    }

    fn into_json(self) -> Vec<u8> {
        let fields = match self {
            Self::Object(fields) => fields,
            Self::Other(state) => return state,
        };
        let mut json = String::with_capacity(fields.iter().map(|(field, value)| field.len() + value.len() + 4).sum());
        json.push('{');
        for (field, value) in fields {
            if json.len() > 1 {
                json.push(',');
            }
            json.push_str(&serde_json::Value::from(field).to_string());
            json.push(':');
            json.push_str(&value);
        }
        json.push('}');
        json.into_bytes()
    }
}

fn is_object(json: &[u8]) -> bool {
    json.trim_ascii_start().starts_with(b"{")
}

/// Returns the items of an array, without the brackets.
fn items_of(array: &str) -> Option<&str> {
    Some(array.strip_prefix('[')?.strip_suffix(']')?.trim_ascii())
}

/// Returns the items that `new` has behind those of `old`, if both are arrays and `new` begins with `old`.
fn appended<'a>(old: &str, new: &'a str) -> Option<&'a str> {
    let items = items_of(old)?;
    if items.is_empty() {
        return items_of(new);
    }
    // Between two items there is a comma, so that `[12]` is not `[1]` with something behind it.
    let rest = new.strip_prefix(old.strip_suffix(']')?)?.strip_suffix(']')?;
    rest.strip_prefix(',')
}

/// Appends items to an array, both as text. Returns `false` if it is not an array.
fn append(array: &mut String, items: &str) -> bool {
    let Some(before) = items_of(array) else { return false };
    if items.is_empty() {
        return true;
    }
    let is_empty = before.is_empty();
    array.pop();
    if !is_empty {
        array.push(',');
    }
    array.push_str(items);
    array.push(']');
    true
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn delta(old: &Value, new: &Value) -> Option<Value> {
        let found = difference(old.to_string().as_bytes(), new.to_string().as_bytes()).unwrap();
        found.map(|json| serde_json::from_slice(&json).unwrap())
    }

    fn folded(snapshot: &str, deltas: &[&str]) -> Result<Value, String> {
        match fold(snapshot.as_bytes(), deltas.iter().map(|delta| delta.as_bytes())) {
            Ok(json) => Ok(serde_json::from_slice(&json).unwrap()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_field_is_set_appended_to_or_removed() {
        let old = json!({"same": {"a": 1}, "set": 1, "list": [1], "from_empty": [], "gone": true});
        let new = json!({"same": {"a": 1}, "set": 2, "list": [1, 2, [3]], "from_empty": [1], "added": [1]});
        let expected = json!({
            "set": {"set": 2, "added": [1]},
            "append": {"list": [2, [3]], "from_empty": [1]},
            "remove": ["gone"],
        });
        assert_eq!(delta(&old, &new), Some(expected));
        assert_eq!(delta(&old, &old), None);
    }

    #[test]
    fn a_longer_number_or_an_edited_item_is_no_append() {
        assert_eq!(delta(&json!({"a": [1]}), &json!({"a": [12]})), Some(json!({"set": {"a": [12]}})));
        assert_eq!(delta(&json!({"a": ["x"]}), &json!({"a": ["y", "z"]})), Some(json!({"set": {"a": ["y", "z"]}})));
        assert_eq!(delta(&json!({"a": [1, 2]}), &json!({"a": [1]})), Some(json!({"set": {"a": [1]}})));
        assert_eq!(delta(&json!({"a": [1]}), &json!({"a": []})), Some(json!({"set": {"a": []}})));
        // The first state ends as a list does, and is a string.
        assert_eq!(delta(&json!({"a": "[1]"}), &json!({"a": [1, 2]})), Some(json!({"set": {"a": [1, 2]}})));
    }

    #[test]
    fn a_state_that_is_not_an_object_is_written_whole() {
        assert_eq!(delta(&json!([1]), &json!([1, 2])), Some(json!({"whole": [1, 2]})));
        assert_eq!(delta(&json!({"a": 1}), &json!(null)), Some(json!({"whole": null})));
        assert_eq!(folded("[1]", &[r#"{"whole":{"a":[]}}"#, r#"{"append":{"a":[1]}}"#]), Ok(json!({"a": [1]})));
        assert_eq!(folded(r#"{"a":1}"#, &[r#"{"whole":null}"#]), Ok(json!(null)));
    }

    #[test]
    fn a_field_may_have_any_name() {
        let (old, new) = (json!({"set": 1, "": 0}), json!({"whole": 1, "\"\n\u{1f980}": [{"append": {}}]}));
        let found = delta(&old, &new).unwrap().to_string();
        assert_eq!(folded(&old.to_string(), &[&found]), Ok(new));
    }

    #[test]
    fn spaces_change_nothing() {
        let deltas = [r#" { "append" : { "a" : [ ] } } "#, r#"{ "append": { "a": [ 2 , 3 ] }, "remove": [ "b" ] }"#];
        assert_eq!(folded(" { \"a\" : [ 1 ] , \"b\" : 1 } ", &deltas), Ok(json!({"a": [1, 2, 3]})));
        assert_eq!(folded(r#"{"a":[ ]}"#, &deltas), Ok(json!({"a": [2, 3]})));
        let found = difference(br#"{"a":[ ]}"#, br#"{"a":[ 1 ]}"#).unwrap().unwrap();
        assert_eq!(folded(r#"{"a":[ ]}"#, &[std::str::from_utf8(&found).unwrap()]), Ok(json!({"a": [1]})));
    }

    #[test]
    fn what_cannot_be_read_is_an_error_that_names_it() {
        let error = |snapshot, deltas: &[&str]| folded(snapshot, deltas).unwrap_err();
        assert_eq!(error("{", &[]), "the state is not JSON");
        assert_eq!(error("nul", &[]), "the state is not JSON");
        assert_eq!(error("{}", &["{}", "{"]), "delta 2 after the snapshot is not a delta");
        assert_eq!(error("{}", &["[]"]), "delta 1 after the snapshot is not a delta");
        assert_eq!(
            error("1", &[r#"{"set":{"a":1}}"#]),
            "delta 1 after the snapshot changes fields, and the state is not an object"
        );
        for (state, items) in [(r#"{"a":1}"#, "[1]"), ("{}", "[1]"), (r#"{"a":[]}"#, "1"), (r#"{"a":"[]"}"#, "[1]")] {
            assert_eq!(
                error(state, &[&format!(r#"{{"append":{{"a":{items}}}}}"#)]),
                "delta 1 after the snapshot appends to the field `a`, which is not an array"
            );
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_filter("JSON has finite numbers only", |f| f.is_finite()).prop_map(Value::from),
            "[\\[\\]{},\" a1\u{1f980}\\\\]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map("[a-c]", inner, 0..4).prop_map(Value::from_iter),
            ]
        })
    }

    /// A state with few names and small arrays, so that two of them share fields and beginnings of arrays.
    fn state() -> impl Strategy<Value = Value> {
        let list = prop::collection::vec((0..3).prop_map(Value::from), 0..4).prop_map(Value::from);
        let field = prop_oneof![list, value()];
        let object = prop::collection::hash_map("[a-d]", field, 0..5).prop_map(Value::from_iter);
        prop_oneof![8 => object, 1 => value()]
    }

    proptest! {
        #[test]
        fn a_fold_of_differences_is_the_last_state(states in prop::collection::vec(state(), 1..6)) {
            let written: Vec<_> = states.iter().map(|state| state.to_string().into_bytes()).collect();
            let mut deltas = Vec::new();
            for pair in written.windows(2) {
                deltas.extend(difference(&pair[0], &pair[1]).unwrap());
            }
            let folded = fold(&written[0], deltas.iter().map(Vec::as_slice)).unwrap();
            let folded: Value = serde_json::from_slice(&folded).unwrap();
            let last: Value = serde_json::from_slice(written.last().unwrap()).unwrap();
            prop_assert_eq!(folded, last);
        }

        #[test]
        fn a_delta_of_items_is_no_longer_than_they_are(items in prop::collection::vec(value(), 1..5), cut in 0..5_usize) {
            let cut = cut.min(items.len() - 1);
            let (old, new) = (json!({"a": items[..cut]}), json!({"a": items}));
            prop_assert_eq!(delta(&old, &new), Some(json!({"append": {"a": items[cut..]}})));
        }
    }
}

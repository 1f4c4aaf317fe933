//! JSON that outlives the process: writing loses nothing or is an error, and reading names the field that does not fit.

mod error;
mod lossless;

use std::{
    any::type_name,
    error::Error,
    panic::{AssertUnwindSafe, catch_unwind},
};

pub use error::{DecodeError, DecodeErrorKind, EncodeError, EncodeErrorKind};
use lossless::{Fault, written};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::panics::panic_message;

type BoxError = Box<dyn Error + Send + Sync>;

/// Writes a value as JSON. The value's own code may panic.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, EncodeError> {
    let fault = Fault::default();
    let (path, kind) = match catch_unwind(AssertUnwindSafe(|| written(value, &fault))) {
        Ok(Ok(json)) => return Ok(json),
        Ok(Err(error)) => fault.into_parts(&error),
        Err(payload) => (String::new(), EncodeErrorKind::Panicked(panic_message(payload))),
    };
    Err(EncodeError { type_name: type_name::<T>(), path, kind })
}

/// Reads a value from JSON. The value's own code may panic.
pub(crate) fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T, DecodeError> {
    let read = || {
        let mut json = serde_json::Deserializer::from_slice(json);
        let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let path = error.path().to_string();
            // A path without segments is displayed as a dot.
            let path = if path == "." { String::new() } else { path };
            (path, DecodeErrorKind::Json(error.into_inner()))
        })?;
        json.end().map_err(|error| (String::new(), DecodeErrorKind::Json(error)))?;
        Ok(value)
    };
    let (path, kind) = match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(parts)) => parts,
        Err(payload) => (String::new(), DecodeErrorKind::Panicked(panic_message(payload))),
    };
    Err(DecodeError { type_name: type_name::<T>(), path, kind })
}

/// Reads a value that code of an older version wrote, after a migration.
pub(crate) fn decode_migrated<T: DeserializeOwned>(
    json: &[u8],
    stored: u32,
    migrate: fn(Value, u32) -> Result<Value, BoxError>,
) -> Result<T, DecodeError> {
    let value = decode(json).map_err(|error: DecodeError| DecodeError { type_name: type_name::<T>(), ..error })?;
    let kind = match catch_unwind(AssertUnwindSafe(|| migrate(value, stored))) {
        Ok(Ok(value)) => return decode(value.to_string().as_bytes()),
        Ok(Err(error)) => DecodeErrorKind::Migration { stored, error },
        Err(payload) => DecodeErrorKind::Panicked(panic_message(payload)),
    };
    Err(DecodeError { type_name: type_name::<T>(), path: String::new(), kind })
}

/// Returns the error of a value that newer code wrote.
pub(crate) fn newer<T>(stored: u32, known: u32) -> DecodeError {
    let kind = DecodeErrorKind::Newer { stored, known };
    DecodeError { type_name: type_name::<T>(), path: String::new(), kind }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use super::*;
    use serde::{Deserialize, Serialize, Serializer};

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Mail {
        to: Vec<Person>,
        scores: HashMap<String, Vec<f64>>,
        size: Option<u128>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Person {
        Nobody,
        Named(String),
        Rated { stars: f32 },
        Pair(u8, f64),
    }

    #[derive(Serialize)]
    enum Deep {
        Named { value: Value },
        Tuple(u8, Value),
        New(Value),
    }

    fn refused(value: &impl Serialize) -> (String, EncodeErrorKind) {
        let error = encode(value).unwrap_err();
        (error.path, error.kind)
    }

    fn nested(levels: usize) -> Value {
        (0..levels).fold(Value::from(1), |inner, _| Value::from(vec![inner]))
    }

    #[test]
    fn every_form_is_read_as_it_was_written() {
        let mail = Mail {
            to: vec![
                Person::Nobody,
                Person::Named("ada".into()),
                Person::Rated { stars: 0.1 },
                Person::Pair(1, 7.767_512_322_924_943e-178),
            ],
            scores: HashMap::from([("a b".into(), vec![0.1, -0.0, f64::MAX])]),
            size: Some(u128::from(u64::MAX)),
        };
        let json = encode(&mail).unwrap();
        assert_eq!(json, serde_json::to_vec(&mail).unwrap());
        assert_eq!(decode::<Mail>(&json).unwrap(), mail);
        let keys = BTreeMap::from([(7_u32, true)]);
        assert_eq!(decode::<BTreeMap<u32, bool>>(&encode(&keys).unwrap()).unwrap(), keys);
        let raw = serde_json::value::RawValue::from_string("[1, 2]".into()).unwrap();
        assert_eq!(encode(&raw).unwrap(), b"[1, 2]");
    }

    #[test]
    fn a_number_that_json_does_not_have_is_an_error_with_its_path() {
        let scores = |scores: Vec<f64>| HashMap::from([("ada".to_owned(), scores)]);
        let mail = Mail { scores: scores(vec![1.0, f64::NAN]), ..Mail::default() };
        assert_eq!(refused(&mail), ("scores.ada[1]".into(), EncodeErrorKind::NotFinite));
        let mail = Mail { to: vec![Person::Nobody, Person::Rated { stars: f32::INFINITY }], ..Mail::default() };
        assert_eq!(refused(&mail), ("to[1].Rated.stars".into(), EncodeErrorKind::NotFinite));
        let mail = Mail { to: vec![Person::Pair(1, f64::NEG_INFINITY)], ..Mail::default() };
        assert_eq!(refused(&mail), ("to[0].Pair[1]".into(), EncodeErrorKind::NotFinite));
        let mail = Mail { size: Some(u128::from(u64::MAX) + 1), ..Mail::default() };
        assert_eq!(refused(&mail), ("size".into(), EncodeErrorKind::TooLarge));
        assert_eq!(refused(&f64::NAN), (String::new(), EncodeErrorKind::NotFinite));
        assert_eq!(refused(&i128::MIN), (String::new(), EncodeErrorKind::TooLarge));
    }

    #[test]
    fn a_key_that_is_no_string_is_an_error_with_the_path_of_its_map() {
        #[derive(Serialize)]
        struct Grid {
            cells: BTreeMap<(u8, u8), bool>,
        }
        let (path, kind) = refused(&Grid { cells: BTreeMap::from([((1, 2), true)]) });
        assert_eq!((path.as_str(), kind), ("cells", EncodeErrorKind::Custom("key must be a string".into())));
    }

    #[test]
    fn a_value_may_be_as_deep_as_it_can_be_read() {
        let json = encode(&nested(127)).unwrap();
        assert_eq!(decode::<Value>(&json).unwrap(), nested(127));
        let (path, kind) = refused(&nested(128));
        assert_eq!(kind, EncodeErrorKind::TooDeep);
        assert_eq!(path, "[0]".repeat(127));
        assert!(decode::<Value>(&serde_json::to_vec(&nested(128)).unwrap()).is_err());

        // A variant with fields is an object inside of an object.
        for value in [Deep::Named { value: nested(125) }, Deep::Tuple(1, nested(125)), Deep::New(nested(126))] {
            assert!(decode::<Value>(&encode(&value).unwrap()).is_ok());
        }
        for value in [Deep::Named { value: nested(126) }, Deep::Tuple(1, nested(126)), Deep::New(nested(127))] {
            assert_eq!(refused(&value).1, EncodeErrorKind::TooDeep);
        }
    }

    #[test]
    fn an_error_or_a_panic_of_the_value_itself_is_an_error() {
        struct Refuses;
        impl Serialize for Refuses {
            fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("locked"))
            }
        }
        struct Panics;
        impl Serialize for Panics {
            fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                panic!("broken")
            }
        }
        let (path, kind) = refused(&(1, [Refuses]));
        assert_eq!((path.as_str(), kind), ("[1][0]", EncodeErrorKind::Custom("locked".into())));
        assert_eq!(refused(&Panics).1, EncodeErrorKind::Panicked("broken".into()));
        let text = encode(&Mail { size: Some(u128::MAX), ..Mail::default() }).unwrap_err().to_string();
        assert_eq!(
            text,
            "`agentflow::json::tests::Mail` cannot be written as JSON, at `size`: the number is beyond 64 bits"
        );
    }

    #[test]
    fn what_cannot_be_read_is_an_error_with_its_path() {
        let path = |json: &str| decode::<Mail>(json.as_bytes()).unwrap_err().path;
        assert_eq!(path(r#"{"to":[],"scores":{"ada":[1,"x"]}}"#), "scores.ada[1]");
        assert_eq!(path(r#"{"to":["Nobody",{"Rated":{"stars":"x"}}],"scores":{}}"#), "to[1].Rated.stars");
        assert_eq!(path(r#"{"to":[]}"#), "");
        assert_eq!(path(r#"{"to":[],"scores":{}} x"#), "");
        let text = decode::<Mail>(br#"{"to":7}"#).unwrap_err().to_string();
        assert_eq!(
            text,
            "`agentflow::json::tests::Mail` cannot be read from JSON, at `to`: invalid type: integer `7`, expected a \
             sequence at line 1 column 7"
        );
    }
}

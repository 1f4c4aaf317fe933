//! [`QuestionType`] and [`AnswerType`]: the types of a node's question and answer, for code that does not know them.

use std::{any::type_name, fmt};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    json::{self, DecodeError},
    panics::catch_panic,
};

/// A question: a value that is written as JSON. Every type that is `Serialize` implements it.
#[diagnostic::on_unimplemented(
    message = "a question is written as JSON, and `{Self}` cannot be",
    label = "not a question",
    note = "add `#[derive(Serialize)]` to `{Self}` (serde)"
)]
pub trait QuestionValue: Serialize {}
#[diagnostic::do_not_recommend]
impl<Q: Serialize> QuestionValue for Q {}

/// An answer: a value that is read from JSON, anew for each attempt of the node. Every type that is `DeserializeOwned`,
/// `Send` and `'static` implements it.
#[diagnostic::on_unimplemented(
    message = "an answer is read from JSON, and `{Self}` cannot be",
    label = "not an answer",
    note = "add `#[derive(Deserialize)]` to `{Self}` (serde); an answer owns its data and is `Send`"
)]
pub trait AnswerValue: DeserializeOwned + Send + 'static {}
#[diagnostic::do_not_recommend]
impl<A: DeserializeOwned + Send + 'static> AnswerValue for A {}

/// A function that returns the JSON Schema of a type.
pub(crate) type SchemaOf = fn() -> Value;

/// The type of a node's question.
#[derive(Clone, Copy)]
pub struct QuestionType {
    name: fn() -> &'static str,
    schema: Option<SchemaOf>,
}

impl QuestionType {
    pub(crate) const fn of<Q>(schema: Option<SchemaOf>) -> Self {
        Self { name: type_name::<Q>, schema }
    }

    /// Returns the JSON Schema of the type, if it has one.
    #[must_use]
    pub fn schema(&self) -> Option<Value> {
        self.schema.map(|schema| schema())
    }
}

/// The type of a node's answer.
#[derive(Clone, Copy)]
pub struct AnswerType {
    name: fn() -> &'static str,
    check: fn(&str) -> Result<(), DecodeError>,
    schema: Option<SchemaOf>,
}

impl AnswerType {
    pub(crate) const fn of<A: AnswerValue>(schema: Option<SchemaOf>) -> Self {
        Self { name: type_name::<A>, check: check::<A>, schema }
    }

    /// Reads the answer as the type of the node.
    ///
    /// # Errors
    ///
    /// If the text is not JSON, or another type.
    pub fn decode(&self, answer: &str) -> Result<Answer, DecodeError> {
        (self.check)(answer)?;
        Ok(Answer { json: answer.into() })
    }

    /// Returns the name of the type, for messages.
    #[must_use]
    pub fn name(&self) -> &'static str {
        (self.name)()
    }

    /// Returns the JSON Schema of the type, if it has one.
    #[must_use]
    pub fn schema(&self) -> Option<Value> {
        self.schema.map(|schema| schema())
    }
}

/// Reads the text as an `A`.
fn check<A: AnswerValue>(answer: &str) -> Result<(), DecodeError> {
    let answer = json::decode::<A>(answer.as_bytes())?;
    // The destructor of the answer is user code and may panic.
    catch_panic(|| drop(answer));
    Ok(())
}

/// An answer of the node's type. It stays JSON, so that each attempt of the node has its own, and the type need not be
/// `Clone`.
#[derive(Clone, Debug)]
pub struct Answer {
    json: Box<str>,
}

impl Answer {
    /// Reads the answer.
    pub(crate) fn read<A: AnswerValue>(&self) -> Result<A, DecodeError> {
        json::decode(self.json.as_bytes())
    }
}

impl fmt::Debug for QuestionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("QuestionType").field(&(self.name)()).finish()
    }
}

impl fmt::Debug for AnswerType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AnswerType").field(&(self.name)()).finish()
    }
}

/// Returns the JSON Schema of the JSON as which a value is written.
#[cfg(feature = "schema")]
pub(crate) fn schema_of_written<T: schemars::JsonSchema>() -> Value {
    schemars::generate::SchemaSettings::default().for_serialize().into_generator().into_root_schema_for::<T>().into()
}

/// Returns the JSON Schema of the JSON as which a value is read.
#[cfg(feature = "schema")]
pub(crate) fn schema_of_read<T: schemars::JsonSchema>() -> Value {
    schemars::generate::SchemaSettings::default().for_deserialize().into_generator().into_root_schema_for::<T>().into()
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Deserializer};

    use super::*;

    #[test]
    fn an_answer_is_read_as_its_type_or_refused() {
        let numbers = AnswerType::of::<Vec<u8>>(None);
        let answer = numbers.decode("[1, 2]").expect("numbers");
        assert_eq!(answer.read::<Vec<u8>>().expect("numbers"), [1, 2]);
        assert!(numbers.decode("[1, 256]").is_err_and(|error| error.to_string().contains("256")));
        assert!(numbers.decode("[1, 2").is_err_and(|error| error.to_string().contains("EOF")));
        assert_eq!(numbers.name(), "alloc::vec::Vec<u8>");
        assert_eq!(numbers.schema(), None);
    }

    struct Broken;

    impl<'de> Deserialize<'de> for Broken {
        #[allow(clippy::panic, reason = "the panic is what is tested")]
        fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            panic!("cannot read this")
        }
    }

    #[test]
    fn a_panic_while_an_answer_is_read_is_an_error_of_the_answer() {
        let error = AnswerType::of::<Broken>(None).decode("1").expect_err("a panic");
        assert!(error.to_string().ends_with("it panicked: cannot read this"), "{error}");
    }
}

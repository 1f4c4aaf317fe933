//! [`Keeps`]: the types that a graph with a store writes and reads.

use std::{cmp::Ordering, fmt};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    carried::InputType,
    error::{DecodeError, EncodeError},
    json,
    state::State,
};

/// The way in which a graph keeps its threads: [`InMemory`] as values, or in a [`Store`](super::Store), [`Durable`].
/// [`CompileOptions::store`](crate::CompileOptions::store) selects the second.
pub trait Persistence: sealed::Sealed + Send + Sync + 'static {}

/// A graph without a store. Its state and what its edges carry may be of any type.
#[derive(Debug)]
pub enum InMemory {}

/// A graph with a store, which keeps its state and what its edges carry as JSON.
#[derive(Debug)]
pub enum Durable {}

impl Persistence for InMemory {}
impl Persistence for Durable {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::InMemory {}
    impl Sealed for super::Durable {}
}

/// A [`Persistence`] that keeps states of type `S`: in a store, those that are `Serialize` and `Deserialize`.
#[diagnostic::on_unimplemented(
    message = "a graph with a store keeps `{S}` as JSON",
    label = "`{S}` cannot be written and read",
    note = "add `#[derive(Serialize, Deserialize)]` to `{S}` (serde), or leave `store` out of `compile {{ .. }}`",
    note = "a state with `#[state(not_stored)]` is for graphs without a store"
)]
pub trait Keeps<S>: Persistence {
    #[doc(hidden)]
    fn codec() -> Option<StateCodec<S>>
    where
        S: State;
}

#[diagnostic::do_not_recommend]
impl<S> Keeps<S> for InMemory {
    fn codec() -> Option<StateCodec<S>>
    where
        S: State,
    {
        None
    }
}

// One bound for the state and its update, so that a state without both derives is one error.
#[diagnostic::do_not_recommend]
impl<S> Keeps<S> for Durable
where
    S: State<Update: Serialize + DeserializeOwned> + Serialize + DeserializeOwned,
{
    fn codec() -> Option<StateCodec<S>> {
        Some(StateCodec {
            encode: json::encode,
            decode: decode_state,
            encode_update: json::encode,
            decode_update: json::decode,
        })
    }
}

/// A [`Persistence`] that keeps the values that edges carry to a node with the input `I`.
#[diagnostic::on_unimplemented(
    message = "a graph with a store keeps `{I}` as JSON",
    label = "`{I}` cannot be written and read",
    note = "add `#[derive(Serialize, Deserialize)]` to `{I}` (serde), or leave `store` out of `compile {{ .. }}`"
)]
pub trait KeepsInput<I>: Persistence {
    #[doc(hidden)]
    fn input() -> InputType
    where
        I: Send + Sync + 'static;
}

#[diagnostic::do_not_recommend]
impl<I> KeepsInput<I> for InMemory {
    fn input() -> InputType
    where
        I: Send + Sync + 'static,
    {
        InputType::of::<I>()
    }
}

#[diagnostic::do_not_recommend]
impl<I: Serialize + DeserializeOwned> KeepsInput<I> for Durable {
    fn input() -> InputType
    where
        I: Send + Sync + 'static,
    {
        InputType::stored::<I>()
    }
}

/// Writes a state or an update as JSON.
pub(crate) type Encode<T> = fn(&T) -> Result<Vec<u8>, EncodeError>;

/// The functions that write and read a state and its updates.
#[doc(hidden)]
pub struct StateCodec<S: State> {
    pub(crate) encode: Encode<S>,
    /// Reads a state that code of this version of the state wrote.
    pub(crate) decode: fn(&[u8], u32) -> Result<S, DecodeError>,
    /// Writes the fields that the update sets.
    pub(crate) encode_update: Encode<S::Update>,
    /// Reads an update. A field that is not there is not set.
    pub(crate) decode_update: fn(&[u8]) -> Result<S::Update, DecodeError>,
}

// The impls are not derived, because the state need not be `Copy`.
#[allow(clippy::expl_impl_clone_on_copy, reason = "the derive would ask it of the state")]
impl<S: State> Clone for StateCodec<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: State> Copy for StateCodec<S> {}

impl<S: State> fmt::Debug for StateCodec<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateCodec").field("version", &S::VERSION).finish_non_exhaustive()
    }
}

fn decode_state<S: State + DeserializeOwned>(state: &[u8], version: u32) -> Result<S, DecodeError> {
    match version.cmp(&S::VERSION) {
        Ordering::Equal => json::decode(state),
        Ordering::Less => json::decode_migrated(state, version, S::migrate),
        Ordering::Greater => Err(json::newer::<S>(version, S::VERSION)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use agentflow_macros::State;
    use serde::{Deserialize, Serialize};
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        error::{DecodeErrorKind, EncodeErrorKind},
        message::{AgentState, Message},
    };

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, State)]
    #[state(crate = crate, version = 3, migrate = from_older)]
    struct Mail {
        to: Vec<String>,
        score: f64,
    }

    fn from_older(mut state: Value, version: u32) -> Result<Value, &'static str> {
        match version {
            1 => Err("version 1 was never stored"),
            2 if state["to"] == "panic" => panic!("broken"),
            _ => {
                state["to"] = json!([state["to"]]);
                Ok(state)
            }
        }
    }

    fn codec<S: State>() -> StateCodec<S>
    where
        Durable: Keeps<S>,
    {
        <Durable as Keeps<S>>::codec().unwrap()
    }

    #[test]
    fn a_graph_without_a_store_has_no_codec() {
        assert!(<InMemory as Keeps<Mail>>::codec().is_none());
        assert!(<InMemory as KeepsInput<u8>>::input().codec.is_none());
    }

    #[test]
    fn a_state_is_read_as_it_was_written() {
        let codec = codec();
        let mail = Mail { to: vec!["ada".into()], score: 0.1 };
        let json = (codec.encode)(&mail).unwrap();
        assert_eq!((codec.decode)(&json, 3).unwrap(), mail);
        let error = (codec.encode)(&Mail { score: f64::NAN, ..mail }).unwrap_err();
        assert_eq!((error.path(), error.kind()), ("score", &EncodeErrorKind::NotFinite));
    }

    #[test]
    fn an_update_is_written_as_the_fields_that_it_sets() {
        let codec = codec::<AgentState>();
        let update = AgentState::update().context([Message::user("hi")]).context([Message::assistant("hello")]);
        let json = (codec.encode_update)(&update).unwrap();
        let mut state = AgentState { context_summary: Some("kept".into()), ..AgentState::default() };
        state.apply((codec.decode_update)(&json).unwrap());
        assert_eq!(state.context[1].text(), "hello");
        assert_eq!(state.context.len(), 2);
        assert_eq!(state.context_summary.as_deref(), Some("kept"));
        let error = (codec.decode_update)(br#"{"context":[{"role":7}],"other":1}"#).unwrap_err();
        assert_eq!(error.path(), "context[0].role");
    }

    #[test]
    fn an_older_version_is_migrated_and_a_newer_one_is_refused() {
        let decode = codec::<Mail>().decode;
        assert_eq!(decode(br#"{"to":"ada","score":1}"#, 2).unwrap(), Mail { to: vec!["ada".into()], score: 1.0 });
        let text = |json: &str, version| decode(json.as_bytes(), version).unwrap_err().to_string();
        let state = r#"{"to":["ada"],"score":1}"#;
        let name = "`agentflow::store::keeps::tests::Mail` cannot be read from JSON";
        assert_eq!(text(state, 4), format!("{name}: it has version 4, and this code knows up to version 3"));
        assert_eq!(
            text(state, 1),
            format!("{name}: it has version 1, and its migration failed: version 1 was never stored")
        );
        assert_eq!(text(r#"{"to":"panic","score":1}"#, 2), format!("{name}: it panicked: broken"));
        let error = decode(br#"{"to":7,"score":1}"#, 2).unwrap_err();
        assert_eq!(error.path(), "to[0]");
        assert!(matches!(error.kind(), DecodeErrorKind::Json(_)));
        assert!(text("{", 2).starts_with(name));
    }

    #[test]
    fn an_input_is_read_as_it_was_written() {
        let codec = <Durable as KeepsInput<Mail>>::input().codec.unwrap();
        let json = (codec.encode)(&Mail { to: vec!["ada".into()], score: 1.0 }).unwrap();
        let read = (codec.decode)(&json).unwrap();
        assert_eq!(read.value().unwrap().downcast_ref::<Mail>().unwrap().to, ["ada"]);
        assert_eq!((codec.decode)(br#"{"to":[1]}"#).unwrap_err().path(), "to[0]");
    }
}

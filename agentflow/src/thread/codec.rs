//! [`Values`]: the states of a thread, as its store holds them.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use serde_json::value::RawValue;

use super::error::ThreadError;
use crate::{
    carried::{Input, InputType},
    state::State,
    store::{CheckpointRow, NewValues, StateCodec, Stored, delta},
};

/// The length of differences that a whole state is not written for, however small it is.
const MIN_DELTA_BYTES: usize = 4 * 1024;

/// The form in which a store holds the states of a graph: JSON, or the values themselves.
pub(super) struct Values<S: State>(Option<StateCodec<S>>);

impl<S: State> Values<S> {
    /// Returns the form for a store, with the codec of a graph that was compiled with one.
    pub(super) fn new(keeps_values: bool, codec: Option<StateCodec<S>>) -> Result<Self, ThreadError> {
        if keeps_values {
            return Ok(Self(None));
        }
        codec.map(|codec| Self(Some(codec))).ok_or(ThreadError::NotSerializable)
    }

    /// Returns whether the store holds the values themselves.
    pub(super) fn are_kept(&self) -> bool {
        self.0.is_none()
    }

    /// Returns the version of the state's type.
    pub(super) fn version() -> u32 {
        S::VERSION
    }

    /// Returns the JSON of a state, or `None` if the store keeps values.
    pub(super) fn json(&self, state: &S) -> Result<Option<Vec<u8>>, ThreadError> {
        let Some(codec) = self.0 else { return Ok(None) };
        (codec.encode)(state).map(Some).map_err(|error| ThreadError::Unwritable { error: error.to_string() })
    }

    /// Returns a copy of a state, for a store that keeps values.
    pub(super) fn kept(state: &S) -> Stored {
        Stored::Shared(Arc::new(state.clone()))
    }

    /// Reads the state of a checkpoint.
    pub(super) fn load(&self, checkpoint: &CheckpointRow) -> Result<S, ThreadError> {
        match (&checkpoint.values, self.0) {
            (Stored::Shared(value), _) => value
                .downcast_ref::<S>()
                .cloned()
                .ok_or_else(|| ThreadError::Unreadable { error: "the state was kept by another graph".to_owned() }),
            (Stored::Json(_), None) => Err(ThreadError::NotSerializable),
            (Stored::Json(json), Some(codec)) => (codec.decode)(json, checkpoint.state_version)
                .map_err(|error| ThreadError::Unreadable { error: error.to_string() }),
        }
    }

    /// Returns the JSON of an update, or `None` if the store keeps values.
    pub(super) fn update_json(&self, update: &S::Update) -> Result<Option<Vec<u8>>, ThreadError> {
        let Some(codec) = self.0 else { return Ok(None) };
        (codec.encode_update)(update).map(Some).map_err(|error| ThreadError::Unwritable { error: error.to_string() })
    }

    /// Reads an update.
    pub(super) fn load_update(&self, json: &[u8]) -> Result<S::Update, ThreadError> {
        let codec = self.0.ok_or(ThreadError::NotSerializable)?;
        (codec.decode_update)(json).map_err(|error| ThreadError::WrongInput { error: error.to_string() })
    }
}

// The impls are not derived, because the state need not be `Copy`.
#[allow(clippy::expl_impl_clone_on_copy, reason = "the derive would ask it of the state")]
impl<S: State> Clone for Values<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: State> Copy for Values<S> {}

impl<S: State> fmt::Debug for Values<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Values").field("are_kept", &self.are_kept()).finish()
    }
}

/// Returns the values of a checkpoint whose parent has the state `old`, and the length of the differences since the last whole
/// state. A whole state is written when the differences outweigh it.
pub(super) fn difference(
    old: Option<&Bytes>,
    new: &Bytes,
    delta_bytes: usize,
) -> Result<(NewValues, usize), ThreadError> {
    let whole = || (NewValues::Snapshot(Stored::Json(new.clone())), 0);
    let Some(old) = old else { return Ok(whole()) };
    let delta = delta::difference(old, new);
    let delta = delta.map_err(|error| ThreadError::Unwritable { error: error.to_string() })?;
    Ok(match delta {
        None => (NewValues::Same, delta_bytes),
        Some(delta) => match delta_bytes + delta.len() {
            bytes if bytes > new.len().max(MIN_DELTA_BYTES) => whole(),
            bytes => (NewValues::Delta(delta.into()), bytes),
        },
    })
}

/// Returns the JSON of the value on an edge.
pub(super) fn encode_input(input: &Input, input_type: InputType) -> Result<Box<RawValue>, ThreadError> {
    let codec = input_type.codec.ok_or(ThreadError::NotSerializable)?;
    let value = input.value().ok_or(ThreadError::NotSerializable)?;
    let unwritable = |error: String| ThreadError::Unwritable { error };
    let json = (codec.encode)(value).map_err(|error| unwritable(error.to_string()))?;
    let json = String::from_utf8(json).map_err(|error| unwritable(error.to_string()))?;
    RawValue::from_string(json).map_err(|error| unwritable(error.to_string()))
}

/// Reads the value on an edge.
pub(super) fn decode_input(json: &RawValue, input_type: InputType) -> Result<Input, ThreadError> {
    let codec = input_type.codec.ok_or(ThreadError::NotSerializable)?;
    (codec.decode)(json.get().as_bytes()).map_err(|error| ThreadError::Unreadable { error: error.to_string() })
}

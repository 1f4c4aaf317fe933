//! Errors of nodes and of their attempts, and of values that a store keeps.

use std::{any::Any, error::Error, fmt, time::Duration};

pub use crate::json::{DecodeError, DecodeErrorKind, EncodeError, EncodeErrorKind};
use crate::panics::panic_message;

type BoxError = Box<dyn Error + Send + Sync>;

/// The error of a node: any error, boxed.
///
/// Every `std::error::Error` converts into it, and so do `anyhow::Error` and plain text, so that `?` works in a node for
/// every kind of error. Like `anyhow::Error` it is not itself a `std::error::Error`; [`as_error`](Self::as_error) returns
/// one.
///
/// A background task may return it too: what a node calls, a task can run. Where a `Box<dyn Error + Send + Sync>` is
/// needed, `map_err(NodeError::into_source)` returns one.
///
/// ```
/// use agentflow::NodeError;
///
/// fn parse(text: &str) -> Result<u16, NodeError> {
///     if text.is_empty() {
///         return Err(NodeError::from("nothing to parse"));
///     }
///     Ok(text.parse()?)
/// }
///
/// assert_eq!(parse("").unwrap_err().to_string(), "nothing to parse");
/// assert!(parse("x").unwrap_err().downcast_ref::<std::num::ParseIntError>().is_some());
/// ```
pub struct NodeError(BoxError);

impl NodeError {
    /// Returns the error as a `std::error::Error`, with its chain of sources.
    #[must_use]
    pub fn as_error(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.0
    }

    /// Returns the node's error if it is an `E`.
    #[must_use]
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.0.downcast_ref()
    }

    /// Returns the boxed error.
    #[must_use]
    pub fn into_source(self) -> BoxError {
        self.0
    }

    /// Returns the node's error if it is an `E`, and `self` otherwise.
    pub(crate) fn downcast<E: Error + 'static>(self) -> Result<Box<E>, Self> {
        self.0.downcast().map_err(Self)
    }

    /// Creates the error of a node that panicked.
    pub(crate) fn panicked(payload: Box<dyn Any + Send>) -> Self {
        Self(Box::new(Panicked { message: panic_message(payload) }))
    }
}

impl<E: Into<BoxError>> From<E> for NodeError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The error of a node that panicked. Find it with [`NodeError::downcast_ref`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("panicked: {message}")]
#[non_exhaustive]
pub struct Panicked {
    /// The message of the panic, or a note that its payload was not text.
    pub message: Box<str>,
}

/// The error of an attempt that exceeded a node's `timeout` or a task's
/// [`attempt_timeout`](crate::task::TaskBuilder::attempt_timeout). Find it with [`NodeError::downcast_ref`], or in the
/// predicate of [`RetryPolicy::when`](crate::RetryPolicy::when). Timeouts inside the node's own code have other types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timed out after {after:?}")]
#[non_exhaustive]
pub struct AttemptTimedOut {
    /// The timeout.
    pub after: Duration,
}

/// The error of a decision without an arm for the route. Find it with [`NodeError::downcast_ref`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no arm for the route `{route}`")]
#[non_exhaustive]
pub struct NoRoute {
    /// The route.
    pub route: Box<str>,
}

/// The error of an `each` whose function returns more items than its
/// [`max_items`](crate::EachOptions::max_items). Find it with [`NodeError::downcast_ref`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are more than {limit} items; raise the limit with `max_items` if that is meant")]
#[non_exhaustive]
pub struct TooManyItems {
    /// The limit.
    pub limit: usize,
}

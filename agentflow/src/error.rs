//! [`NodeError`]: why a node failed.

use std::{
    any::Any,
    error::Error,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

type BoxError = Box<dyn Error + Send + Sync>;

/// Why a node failed: any error, boxed.
///
/// Every `std::error::Error` converts into it, `anyhow::Error` and plain text too, so `?` works in a node whatever
/// fails there. Like `anyhow::Error` it is not itself a `std::error::Error`; [`as_error`](Self::as_error) is.
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
    /// The error as a `std::error::Error`, with its chain of sources.
    #[must_use]
    pub fn as_error(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.0
    }

    /// The error that the node returned, if it is an `E`.
    #[must_use]
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.0.downcast_ref()
    }

    /// The boxed error, to pass on.
    #[must_use]
    pub fn into_source(self) -> BoxError {
        self.0
    }

    /// The error that the node returned, if it is an `E`; else the whole again.
    pub(crate) fn downcast<E: Error + 'static>(self) -> Result<Box<E>, Self> {
        self.0.downcast().map_err(Self)
    }

    /// What a node's panic becomes.
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

/// A node panicked; this is its error, found with [`NodeError::downcast_ref`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("panicked: {message}")]
#[non_exhaustive]
pub struct Panicked {
    /// What `panic!` was given, or a note that it was not text.
    pub message: Box<str>,
}

/// An attempt took longer than it may: a node's `timeout`, or a task's
/// [`attempt_timeout`](crate::task::TaskBuilder::attempt_timeout). A node's error is found with [`NodeError::downcast_ref`], and
/// both are what [`RetryPolicy::when`](crate::RetryPolicy::when) is asked about. A timeout of the node's own is another type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timed out after {after:?}")]
#[non_exhaustive]
pub struct AttemptTimedOut {
    /// The timeout.
    pub after: Duration,
}

/// A router gave a route that no arm has; this is the error, found with [`NodeError::downcast_ref`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no arm for the route `{route}`")]
#[non_exhaustive]
pub struct NoRoute {
    /// The route.
    pub route: Box<str>,
}

/// The text that `panic!` was given: it arrives as `&str` or as `String`, depending on how it was formatted.
pub(crate) fn panic_message(payload: Box<dyn Any + Send>) -> Box<str> {
    let message = if let Some(text) = payload.downcast_ref::<&'static str>() {
        (*text).into()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.as_str().into()
    } else {
        "(the panic carried no text)".into()
    };
    discard(payload);
    message
}

/// Does what may run a destructor of the user's, or other code of theirs that nothing depends on: one that panics is to
/// take nothing away from whoever goes on.
pub(crate) fn quietly(run: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(run)) {
        discard(payload);
    }
}

/// Drops what was panicked with: it is the user's, and so is its destructor, which may panic as well.
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(payload);
    }
}

//! Panics of user code: their messages, and their containment.

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Returns the message of a panic. Its payload is a `&str` or a `String`, depending on how it was formatted.
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

/// Returns the text of an error. The error may belong to the user and panic when it is formatted.
pub(crate) fn text_of(error: &impl fmt::Display) -> String {
    guarded_text(|| error.to_string())
}

/// Returns the text that user code formats, or a note that it panicked.
pub(crate) fn guarded_text(format: impl FnOnce() -> String) -> String {
    catch_unwind(AssertUnwindSafe(format)).unwrap_or_else(|payload| {
        discard(payload);
        "the error panicked when it was formatted".to_owned()
    })
}

/// Runs user code whose result is not needed, such as a destructor, and swallows its panic, so that it cannot replace
/// the outcome of the caller.
pub(crate) fn catch_panic(run: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(run)) {
        discard(payload);
    }
}

/// Drops the payload of a panic, whose destructor may panic as well.
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(payload);
    }
}

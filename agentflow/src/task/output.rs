//! [`TaskOutput`]: the types that a task may return.

use std::error::Error;

use crate::error::NodeError;

mod sealed {
    pub trait Sealed {}
}

/// A result of a background task: `()`, or a `Result` whose error converts into a [`NodeError`], as that of a node does.
///
/// These are the errors that convert into a `Box<dyn Error + Send + Sync>`, and `NodeError` itself, so that a node and a
/// task may share a function. No other type is accepted, so that no error is lost by being a mere value.
///
/// ```
/// use agentflow::{NodeError, task::TaskError};
///
/// async fn send_invoice(id: &str) -> Result<u32, NodeError> {
///     Ok(id.parse()?)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let tasks = agentflow::BackgroundTaskManager::new();
/// let Err(TaskError::Failed(error)) = tasks.create_task(send_invoice("owl")).spawn()?.await else { panic!() };
/// assert!(error.is::<std::num::ParseIntError>());
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "a background task returns `()` or a `Result`, not `{Self}`",
    label = "this task returns `{Self}`",
    note = "to get a value from the task's handle, return `Ok::<_, std::convert::Infallible>(value)`; to drop it, \
            end with `;`",
    note = "the error of the `Result` is any `std::error::Error + Send + Sync + 'static`, `anyhow::Error` or `String`"
)]
pub trait TaskOutput: sealed::Sealed + Send + 'static {
    /// The value that awaiting the task's handle returns.
    type Value: Send + 'static;

    #[doc(hidden)]
    fn into_result(self) -> Result<Self::Value, Box<dyn Error + Send + Sync>>;
}

impl sealed::Sealed for () {}

impl TaskOutput for () {
    type Value = ();

    fn into_result(self) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(())
    }
}

mod never {
    /// Names the return type of a function pointer. For `fn() -> !` that is the never type, which has no stable name.
    pub trait Returned {
        type Type;
    }

    impl<T> Returned for fn() -> T {
        type Type = T;
    }
}

/// The type of a `loop` that never ends, and so the output of `async { loop { .. } }`.
type Never = <fn() -> ! as never::Returned>::Type;

impl sealed::Sealed for Never {}

#[diagnostic::do_not_recommend]
impl TaskOutput for Never {
    type Value = Never;

    fn into_result(self) -> Result<Never, Box<dyn Error + Send + Sync>> {
        self
    }
}

impl<T, E> sealed::Sealed for Result<T, E> {}

impl<T, E> TaskOutput for Result<T, E>
where
    T: Send + 'static,
    E: Into<NodeError> + Send + 'static,
{
    type Value = T;

    fn into_result(self) -> Result<T, Box<dyn Error + Send + Sync>> {
        self.map_err(|error| error.into().into_source())
    }
}

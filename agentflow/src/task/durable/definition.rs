//! [`Task`]: a durable task as a type.

use serde::{Serialize, de::DeserializeOwned};

/// A durable task: an `async fn` with [`#[task]`](macro@crate::task), or a type that implements this by hand.
///
/// It is stored with its arguments before it runs, and runs again if the process dies, so that its body runs at least
/// once and has exactly one recorded outcome. [`create_durable_task`](crate::BackgroundTaskManager::create_durable_task)
/// makes one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a durable task",
    label = "not a durable task",
    note = "annotate its `async fn` with `#[agentflow::task]`"
)]
pub trait Task: 'static {
    /// The arguments of the task, `()` if it takes none.
    type Args: TaskArgs;

    /// The name under which the task is stored, and found again by another process: it is the same for as long as a task
    /// of this name may be in a store.
    const NAME: &'static str;
}

/// The arguments of a durable task, which are stored as JSON.
#[diagnostic::on_unimplemented(
    message = "the arguments of a durable task are stored as JSON, and `{Self}` cannot be",
    label = "cannot be written and read",
    note = "add `#[derive(Serialize, Deserialize)]` to `{Self}` (serde); arguments own their data and are `Send`"
)]
pub trait TaskArgs: Serialize + DeserializeOwned + Send + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + Send + 'static> TaskArgs for T {}

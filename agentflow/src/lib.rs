//! A graph runtime for agent services.

#[doc(hidden)]
pub mod __private;
mod config;
mod message;
mod run_id;
mod state;
mod task;

/// Makes a struct with named fields a [`State`](trait@State), and the type of its updates.
///
/// For `Report` there will be `ReportUpdate`, made with `Report::update()`, with a setter for each field. A setter is
/// as visible as its field and has the field's documentation. What it takes and does depends on how the field merges:
///
/// | field | setter takes | an update |
/// |---|---|---|
/// | `title: String` | `impl Into<String>` | replaces the value |
/// | `#[state(append)] notes: Vec<String>` | an iterator of `impl Into<String>` | appends; so does a second call of the setter |
/// | `#[state(with = longest)] summary: String` | `impl Into<String>` | calls `longest(&mut summary, new)`, once for each call of the setter |
///
/// `append` is for every collection that is `IntoIterator + Extend + Default`: `Vec`, `VecDeque`, `HashMap`,
/// `BTreeSet`… `with` names a `fn(&mut T, T)`. Fields of a number type take that type itself, so that `.pages(3)` needs
/// no suffix.
///
/// ```
/// use agentflow::State;
///
/// #[derive(Clone, Debug, Default, PartialEq, State)]
/// struct Report {
///     title: String,
///     pages: u32,
///     #[state(append)]
///     notes: Vec<String>,
///     #[state(with = longest)]
///     summary: String,
/// }
///
/// fn longest(old: &mut String, new: String) {
///     if new.len() > old.len() {
///         *old = new;
///     }
/// }
///
/// let mut report = Report::default();
/// report.apply(
///     Report::update().title("Owls").pages(3).notes(["nocturnal", "silent"]).summary("They hunt."),
/// );
/// report.apply(Report::update().notes(["far-sighted"]).summary("Birds."));
///
/// assert_eq!(report.notes, ["nocturnal", "silent", "far-sighted"]);
/// assert_eq!(report.summary, "They hunt.");
/// ```
///
/// An update is `Clone`, `Default` and `Debug` (which names the fields that it sets) and asks no such thing of the
/// fields but `Clone`. A generic struct is a state when its parameters are `Clone + Send + Sync + 'static`. A struct
/// with a lifetime is none: a run owns its state.
///
/// `#[state(crate = path)]` on the struct names the path of this crate, for a crate that re-exports it.
pub use agentflow_macros::State;
pub use config::{RunConfig, ValueError};
pub use message::{AgentState, Content, Message, MessageId, Role, ToolCall, ToolResult};
pub use run_id::{InvalidRunId, RunId};
pub use state::State;
pub use task::{
    BackgroundTaskManager, CancelReport, CancellationToken, CloseReport, SpawnError, StillRunning,
    TaskBuilder, TaskContext, TaskEnd, TaskError, TaskHandle, TaskId, TaskInfo, TaskManagerOptions,
    TaskOrigin, TaskOutcome, TaskOutput, TaskState, TaskStats,
};

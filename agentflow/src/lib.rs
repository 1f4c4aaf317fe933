//! A graph runtime for agent services: workflows are graphs of async functions, run on tokio, and start work in the
//! background from inside any node.
//!
//! What other runtimes find out while running, or never, is a compile error here, at the token that is wrong. And
//! background work is part of the runtime: it has a name, a timeout, an owner and an end that somebody can see, and is
//! drained when the process is told to stop.
//!
//! ```
//! use std::time::Duration;
//! use agentflow::{AgentState, BackgroundTaskManager, Message, NodeError, RunConfig, graph, node};
//!
//! async fn send_notification(user: String, text: &'static str) {
//!     tokio::time::sleep(Duration::from_millis(5)).await; // slow IO
//!     println!("notification sent to {user}: {text}");
//! }
//!
//! #[node(MAIN)]
//! async fn my_node(
//!     state: &mut AgentState,
//!     config: &RunConfig,
//!     task_manager: &BackgroundTaskManager,
//! ) -> Result<(), NodeError> {
//!     state.context.push(Message::assistant("Your report is being processed in the background."));
//!     let user = config.user_id().unwrap_or("anon").to_owned();
//!     task_manager
//!         .create_task(send_notification(user, "Report ready soon"))
//!         .name("send_notification")
//!         .timeout(Duration::from_secs(10))
//!         .spawn()?;
//!     Ok(())
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let app = graph! { MAIN -> END; compile { shutdown_timeout: 30s } };
//! let state = app.invoke(AgentState::default(), RunConfig::new().with_user_id("ada")).await?;
//! assert_eq!(state.context[0].text(), "Your report is being processed in the background.");
//!
//! let report = app.aclose().await; // waits up to 30 s for send_notification
//! assert!(report.tasks.unfinished.is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! Where to look: [`node`](macro@node) and [`graph!`] for the macros, [`StateGraph`] for graphs that are known only at run
//! time, [`CompiledGraph`] for running and shutting down, [`BackgroundTaskManager`] for background work, with a graph or
//! without one.
//!
//! The feature `metrics`, off unless asked for, counts and measures background tasks: see the
//! [names](BackgroundTaskManager#metrics).

mod config;
pub mod error;
pub mod graph;
pub mod message;
mod node;
mod retry;
pub mod run;
mod run_id;
pub mod shutdown;
pub mod state;
pub mod task;

#[doc(hidden)]
pub mod __private;

/// An `async fn` becomes a node that [`graph!`] can name.
///
/// The function stays as it is and can be called in a unit test. Beside it stands a handle, a type of the same name, or
/// the one that `#[node(MAIN)]` gives.
///
/// Parameters are chosen by their **name** and checked by their type; each may be left out, the order is free:
///
/// | parameter | type | gives |
/// |---|---|---|
/// | `state` | `&mut S` | the run's state, changed in place: the usual form, without a copy |
/// | | `&S` | reads the state; the node may return an update |
/// | | `S` | a copy of the state; the node returns the new one |
/// | `config` | [`&RunConfig`](RunConfig) | thread, run and user id, and the caller's own values |
/// | `task_manager` | [`&BackgroundTaskManager`](BackgroundTaskManager) | the app's manager, labelled with this run and node |
/// | `events` | [`&EventWriter`](EventWriter) | writes custom events |
/// | `cancel` | [`&CancellationToken`](CancellationToken) | the run's token, for what the node starts; the node itself is dropped at its await |
/// | `attempt` | `u32` | which attempt of the node this is, from 1 |
/// | `error` | [`Option<&NodeFailure>`](NodeFailure) | the failure for which the run came here, by another node's `on_error` |
/// | `#[inject] db` | `&Db` | a service of the app's context: see [`Provide`] |
///
/// A node without `state` runs on every state. What it returns: nothing, an update (`&S`) or the new state (`S`); where a
/// decision follows, a [`Route`](derive@Route) instead of nothing, or beside the others in a tuple. Each of these may also
/// be the `Ok` of a `Result` with any error that converts into [`NodeError`].
///
/// ```
/// use agentflow::{AgentState, Message, NodeError, node};
///
/// #[node]
/// async fn shout(state: &mut AgentState) -> Result<(), NodeError> {
///     let last = state.context.last().ok_or("nothing was said")?.text().to_uppercase();
///     state.context.push(Message::assistant(last));
///     Ok(())
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// // The function is still a function.
/// let mut state = AgentState::default();
/// assert_eq!(shout(&mut state).await.unwrap_err().to_string(), "nothing was said");
/// # }
/// ```
///
/// Generic nodes are named with their arguments: `graph! { ask::<OpenAi> -> END }`. A crate that re-exports this one says
/// where it is: `#[node(crate = my_crate::agentflow)]`.
pub use agentflow_macros::node;

/// A workflow drawn with arrows: an expression of type [`CompiledGraph<S, C>`](CompiledGraph), checked when your crate is
/// compiled. It cannot fail at run time.
///
/// ```
/// use agentflow::{AgentState, Message, RunConfig, graph, node};
///
/// #[node]
/// async fn greet(state: &mut AgentState) {
///     state.context.push(Message::assistant("hello"));
/// }
///
/// #[node]
/// async fn part(state: &mut AgentState) {
///     state.context.push(Message::assistant("goodbye"));
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), agentflow::RunError> {
/// let app = graph! {
///     name = "manners";
///     node FAREWELL = part;
///     greet -> FAREWELL -> END;
///     compile { shutdown_timeout: 5s, recursion_limit: 10 }
/// };
/// let state = app.invoke(AgentState::default(), RunConfig::new()).await?;
/// assert_eq!(state.context.len(), 2);
/// # Ok(())
/// # }
/// ```
///
/// | statement | meaning |
/// |---|---|
/// | `A -> B -> END` | after A, B; then the run is done |
/// | `A -> { B, C -> D } -> E` | after A both branches side by side, then E, once; branches read the state and bring updates |
/// | `A -> match next { Step::Again => A, Step::Done => END }` | goes where `next(&state)` says: Rust's own `match`, with all its patterns |
/// | `A -> match { Step::Again => A, Step::Done => END }` | goes where A says, which returns a [`Route`](derive@Route) or a `bool` |
/// | `START -> A` | runs begin at A; without it, at the first node of the first chain |
/// | `node X = my_node;` | `my_node` under another name in this graph |
/// | `node X = my_node { retry: 3, timeout: 30s };` | with [`NodeOptions`]: each key is a method, durations as in `compile` |
/// | `node X = (value);` | any value that implements [`Node`]; a variable goes in parentheses |
/// | `graph X { A -> B -> END }` | a graph inside this one, as its node X; it shares the state |
/// | `node X = other_app();` | a compiled graph as a node; one with another state by [`map_state`](CompiledGraph::map_state) |
/// | `type State = S;` | the state, where it cannot be told from the nodes |
/// | `name = "support";` | what the graph is called in spans |
/// | `compile { key: value }` | [`CompileOptions`]: each key is a method, a duration may be written `30s`, `1.5s`, `200ms`, `5m`, `1h` |
/// | `crate = path;` | where a re-exported agentflow is |
///
/// A node has one way on: one edge, one `match` or one group. The order of the statements has no meaning but the entry's. A graph with a name of its own is a
/// function that returns one.
///
/// `graph!( .. )` and `graph![ .. ]` mean the same. `graph!< .. >` is not Rust: a macro call takes `()`, `[]` or `{}`.
pub use agentflow_macros::graph;

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

/// Makes an enum a [`Route`](trait@Route): what a node returns for a decision to follow.
///
/// ```
/// use agentflow::{AgentState, Message, Route, RunConfig, graph, node};
///
/// #[derive(Route)]
/// enum Step {
///     Again,
///     Done,
/// }
///
/// #[node]
/// async fn count(state: &mut AgentState) -> Step {
///     state.context.push(Message::assistant("one more"));
///     if state.context.len() < 3 { Step::Again } else { Step::Done }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), agentflow::RunError> {
/// let app = graph! {
///     count -> match {
///         Step::Again => count,
///         Step::Done => END,
///     }
/// };
/// let state = app.invoke(AgentState::default(), RunConfig::new()).await?;
/// assert_eq!(state.context.len(), 3);
/// # Ok(())
/// # }
/// ```
///
/// `#[route(crate = path)]` on the enum names the path of this crate, for a crate that re-exports it.
pub use agentflow_macros::Route;

/// Makes the fields of a struct the services that nodes `#[inject]`: one [`Provide`](trait@Provide) impl for each
/// field's type.
///
/// ```
/// use agentflow::{AgentState, Provide, RunConfig, graph, node};
///
/// struct Orders;
/// struct Mailer;
///
/// #[derive(Provide)]
/// struct Services {
///     orders: Orders,
///     mailer: Mailer,
///     #[provide(skip)]
///     version: &'static str,
/// }
///
/// #[node]
/// async fn ship(state: &mut AgentState, #[inject] orders: &Orders, #[inject] mailer: &Mailer) {}
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), agentflow::RunError> {
/// let services = Services { orders: Orders, mailer: Mailer, version: "1.0" };
/// let app = graph! { ship -> END; compile { services: services } };
/// app.invoke(AgentState::default(), RunConfig::new()).await?;
/// assert_eq!(app.services().version, "1.0");
/// # Ok(())
/// # }
/// ```
///
/// A node finds a service by its type, so two fields of one type are a compile error: wrap one of them in a type of its
/// own, or mark it `#[provide(skip)]`. `#[provide(crate = path)]` on the struct names the path of this crate, for a
/// crate that re-exports it.
pub use agentflow_macros::Provide;

pub use error::NodeError;
pub use graph::{CompileOptions, CompiledGraph, END, NodeOptions, START, StateGraph};
pub use message::{AgentState, Message};
pub use node::{Provide, Route};
pub use retry::RetryPolicy;
pub use run::{EventWriter, NodeFailure, RunConfig, RunError, RunId};
pub use shutdown::ShutdownReport;
pub use state::State;
pub use task::{BackgroundTaskManager, CancellationToken, TaskContext};

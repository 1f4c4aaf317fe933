//! A graph runtime for agent services: workflows are graphs of async functions, run on tokio, whose nodes can start
//! background work.
//!
//! Two ideas set it apart:
//!
//! - **Wiring mistakes are compile errors**, reported at the wrong token. Other runtimes report them at run time or never.
//! - **Background work is part of the runtime.** Every task has a name, a timeout, an owner and one recorded outcome, and
//!   is drained when the process is asked to stop.
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
//! # Modules
//!
//! | module | contents |
//! |---|---|
//! | [`graph`](mod@graph) | [`StateGraph`], [`CompiledGraph`], their options and errors; [`Node`](graph::Node) for nodes written by hand |
//! | [`run`] | [`RunConfig`], [`RunError`], and the events of a [`RunStream`](run::RunStream) |
//! | [`task`](mod@task) | [`BackgroundTaskManager`], with a graph or without one |
//! | [`state`] | [`State`](trait@State) and its updates |
//! | [`message`] | [`AgentState`] and the [`Message`]s of a conversation |
//! | [`thread`] | [`Thread`](thread::Thread), a conversation or case that outlives its runs, and, in a store, the process |
//! | [`store`] | the stores of threads and durable tasks, and the interface of one |
//! | [`question`] | [`Ask`], the result of a node that asks, and a question for the approval of tool calls |
//! | [`store`] | [`Store`](store::Store), where a graph keeps what outlives the process |
//! | [`error`] | [`NodeError`], and the errors of panics, timeouts, missing arms and values that a store cannot keep |
//! | [`shutdown`] | [`signal`](shutdown::signal) and [`ShutdownReport`] |
//!
//! The macros are [`#[node]`](macro@node), [`graph!`], [`#[derive(State)]`](derive@State),
//! [`#[derive(Route)]`](derive@Route) and [`#[derive(Provide)]`](derive@Provide).
//!
//! # Features
//!
//! All are off by default.
//!
//! - `conformance` checks a store of one's own: `store::conformance`.
//! - `metrics` counts and measures runs, nodes and background tasks; see the [names](BackgroundTaskManager#metrics) of those
//!   of tasks, and the guide to observability for all.
//! - `schedule` finds the times of cron expressions in a time zone: `task::Calendar`.
//! - `schema` makes JSON Schemas of the questions and answers that implement `schemars::JsonSchema`.
//! - `svg` draws graphs without other programs: `CompiledGraph::svg`.

mod attempt;
mod carried;
mod config;
mod durable;
pub mod error;
pub mod graph;
mod json;
pub mod message;
mod node;
mod panics;
pub mod question;
mod retry;
pub mod run;
mod run_id;
mod seconds;
mod session;
pub mod shutdown;
mod span;
pub mod state;
pub mod store;
mod suggest;
mod sync;
pub mod task;
pub mod thread;

#[doc(hidden)]
pub mod __private;

/// Turns an `async fn` into a node that [`graph!`] can name.
///
/// The function is left as it is and can be called in a unit test. The macro adds a handle, a type with the same name as
/// the function, or with the name in `#[node(MAIN)]`.
///
/// Parameters are chosen by **name** and checked by type. All are optional, and their order is free:
///
/// | parameter | type | value |
/// |---|---|---|
/// | `state` | `&mut S` | the run's state, mutated in place: the usual form, without a copy |
/// | | `&S` | the state, read only; the node may return an update. The only form that can run in a group |
/// | | `S` | a copy of the state; the node returns the new one |
/// | `input` | `T` (`T: Clone`) or `&T` | the value that the edge to this node carries: a payload of an arm, or an item of `each` |
/// | `answer` | `Option<A>` | the answer to the question that the node asked, read from JSON; such a node returns [`Ask<Q, T>`](Ask) |
/// | `config` | [`&RunConfig`](RunConfig) | thread, run and user id, and the caller's own values |
/// | `task_manager` | [`&BackgroundTaskManager`](BackgroundTaskManager) | the app's manager, labelled with this run and node |
/// | `events` | [`&EventWriter`](EventWriter) | writes custom events; a clone of it does so in a task |
/// | `cancel` | [`&CancellationToken`](CancellationToken) | the run's token, for work that the node starts; the node itself is dropped at its current await |
/// | `attempt` | `u32` | the number of the attempt, from 1 |
/// | `error` | [`Option<&NodeFailure>`](NodeFailure) | the failure that led the run here by another node's `on_error` |
/// | `step` | [`&StepId`](run::StepId) | the identity of the step, the same in every execution of it: an idempotency key |
/// | `steps_left` | `usize` | the number of node executions that the recursion limit still allows on this path, after this one |
/// | `#[inject] db` | `&Db` | a service of the app, which is borrowed: see [`Provide`] |
///
/// A node without `state` runs on every state. A node returns nothing, an update (with `&S`) or the new state (with `S`). If
/// a decision follows, it returns a [`Route`](derive@Route), alone or in a tuple with one of these. Each of them may also be
/// the `Ok` of a `Result` with any error that converts into [`NodeError`].
///
/// A node with an `answer`, and no other, returns [`Ask<Q, T>`](Ask), where `T` is what it would return otherwise, alone or as
/// the `Ok` of a `Result`. See [`question`].
///
/// A node with an `input` is reached only by edges that carry a value of its type, each attempt receives the same value, and
/// a value is `Send + Sync + 'static`: a text is a `String`, and is borrowed as `input: &String`.
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
/// // The function can be called directly.
/// let mut state = AgentState::default();
/// assert_eq!(shout(&mut state).await.unwrap_err().to_string(), "nothing was said");
/// # }
/// ```
///
/// Generic nodes are named with their arguments: `graph! { ask::<OpenAi> -> END }`. A crate that re-exports this one
/// specifies its path: `#[node(crate = my_crate::agentflow)]`.
pub use agentflow_macros::node;

/// Builds a [`CompiledGraph<S, C>`](CompiledGraph) from nodes and arrows. The graph is checked at compile time, and
/// building it cannot fail at run time.
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
/// | `A -> B -> END` | A, then B; then the run ends |
/// | `A -> { B, C -> D } -> E` | after A both branches in parallel, then E, once; branches read the state and return updates |
/// | `A -> match next { Step::Again => A, Step::Done => END }` | continues at the arm that matches `next(&state)`: Rust's own `match`, with all its patterns |
/// | `A -> match { Step::Again => A, Step::Done => END }` | continues at the arm that matches the [`Route`](derive@Route) or `bool` that A returns |
/// | `A -> match { Step::Tools(calls) => B(calls) -> A, Step::Done => END }` | the edge to B carries a value, an expression over the pattern's variables: the `input` of B |
/// | `A -> each items { B -> C } -> D` | B -> C in parallel for each item that `items(&state)` returns, which is the `input` of B; then D, once. Updates merge in the order of the items |
/// | `A -> each items { max_parallel: 8 } { B } -> D` | with [`EachOptions`]: each key is a method |
/// | `A -> any { B, C } -> D` | B and C in parallel; the first branch that succeeds wins and the others are dropped; then D, once. If all fail: [`AllFailed`](run::AllFailed) |
/// | `{ B -> match r { X => C, Y => JOIN }, D } -> E` | a decision in a branch; `JOIN`, or the end of an arm's chain, goes on to E |
/// | `A -> { B, C } { on_error: D } -> E` | the options of a group, of `each` or of `any`: `on_error` and `label` |
/// | `START -> A` | runs begin at A; the default is the first node of the first chain |
/// | `node X = my_node;` | `my_node` under another name in this graph |
/// | `node X = my_node { retry: 3, timeout: 30s };` | with [`NodeOptions`]: each key is a method, durations as in `compile` |
/// | `node X = (value);` | any value that implements [`Node`](graph::Node); a variable goes in parentheses |
/// | `graph X { A -> B -> END }` | a subgraph as the node X; it shares the state and the services |
/// | `node X = other_app();` | a compiled graph as a node; one with another state by [`map_state`](CompiledGraph::map_state) |
/// | `type State = S;` | the state, where it cannot be inferred from the nodes |
/// | `name = "support";` | the name of the graph in spans and in its store |
/// | `compile { key: value }` | [`CompileOptions`]: each key is a method, a duration may be written `30s`, `1.5s`, `200ms`, `5m`, `1h` |
/// | `compile { store: store }` | [`CompileOptions::store`]: a graph with a store has a `name`, and the state and every `input` are `Serialize` and `Deserialize` |
/// | `tasks { deliver, report }` | the durable tasks that the app runs, and that nodes may spawn: see [`#[task]`](macro@task) |
/// | `compile { on_commit: f }` | [`StateGraph::on_commit`]: calls `f` after each committed node |
/// | `crate = path;` | the path of a re-exported agentflow |
///
/// A node has one outgoing edge, one `match` or one group. `START`, `END` and `JOIN` are reserved. The order of the statements matters only for the default entry.
/// For a graph with a name of its own, write a function that returns it.
///
/// The branches of a group read the state as it was before the group, with the updates of their own nodes, and all updates
/// are merged in written order. A branch may decide, loop and recover among nodes of its own, and never leaves its group.
/// If two branches, or two items, replace the same field, the run fails with
/// [`RunErrorKind::Conflict`](run::RunErrorKind::Conflict) and nothing of the group is merged; mark the field `append` or `with` in [`#[derive(State)]`](derive@State) to merge instead. Which
/// of two branches that are woken, or fail, at the same moment comes first is not defined; the merge does not depend on it.
///
/// Up to 32 graphs and groups may be inside each other: a run polls all of them on one stack, and tokio's threads have
/// 2 MiB of it.
///
/// # Panics
///
/// The expression panics if a graph that is a value, as in `node SUB = sub_app();`, is nested too deep, was compiled with a
/// `shutdown_timeout`, which has no effect there, or asks a question in a branch of `any`; [`StateGraph`] returns an error. All
/// other mistakes are compile errors.
///
/// # Other brackets
///
/// `graph!( .. )` and `graph![ .. ]` are equivalent. `graph!< .. >` is not valid Rust: a macro call takes `()`, `[]` or `{}`.
pub use agentflow_macros::graph;

/// Implements [`State`](trait@State) for a struct with named fields, and defines the type of its updates.
///
/// For `Report` the type is `ReportUpdate`, created by `Report::update()`, with a setter for each field. A setter has the
/// visibility and the documentation of its field. Its argument and its effect depend on how the field merges:
///
/// | field | argument of the setter | effect of an update |
/// |---|---|---|
/// | `title: String` | `impl Into<String>` | replaces the value; if two branches of a group do so, the run fails |
/// | `tags: Vec<String>`, or another std collection | an iterator of `impl Into<String>` | replaces the collection |
/// | `editor: Option<String>` | `impl Into<String>`, or an `Option<String>` | replaces the value |
/// | `#[state(messages)] chat: Vec<Message>` | an iterator of messages | replaces messages by id, appends the others |
/// | `#[state(append)] notes: Vec<String>` | an iterator of `impl Into<String>` | appends; so does a second call of the setter |
/// | `#[state(with = longest)] summary: String` | `impl Into<String>` | calls `longest(&mut summary, new)`, once for each call of the setter |
///
/// If two branches of a group replace the same field, the run fails with
/// [`RunErrorKind::Conflict`](run::RunErrorKind::Conflict) and nothing of the group is merged; mark the field `append` or
/// `with` to merge instead.
///
/// If the fields are `Serialize` and `Deserialize`, so is the update: as an object of the fields that are set, under the names
/// that serde's `rename`, `rename_all` and `alias` give them and without those that it skips. A field that is not in the
/// object is not set, and an unknown one is ignored. Several values for a field with `with` are `{"$values": [..]}`. A field
/// with serde's `flatten`, `with` or `serialize_with` is a compile error, unless the struct has `#[state(not_stored)]`; then
/// its updates are not written, and no graph with a [store](CompileOptions::store) has this state.
///
/// `#[state(version = 2, migrate = older)]` on the struct changes the form of the state in a store: `older` is a
/// `fn(serde_json::Value, u32) -> Result<serde_json::Value, E>` that turns the JSON of a state of an older version, the second
/// argument, into that of this one. States without a version have version 1, and a newer version than the struct's is an
/// error.
///
/// `append` works for every collection that is `IntoIterator + Extend + Default`: `Vec`, `VecDeque`, `HashMap`,
/// `BTreeSet`… `with` names a `fn(&mut T, T)`. The setter of a field of a number type takes that type itself, so that
/// `.pages(3)` needs no suffix.
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
/// An update is `Clone`, `Default` and `Debug`, which writes the names of the fields that it sets; the fields need only be
/// `Clone`. A generic struct is a state if its parameters are `Clone + Send + Sync + 'static`. A struct with a lifetime
/// cannot be a state, because a run owns its state.
///
/// For a re-exported agentflow, `#[state(crate = path)]` on the struct specifies its path.
pub use agentflow_macros::State;

/// Implements [`Route`](trait@Route) for an enum, so that a node can return it and a decision can match on it.
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
/// For a re-exported agentflow, `#[route(crate = path)]` on the enum specifies its path.
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
/// `#[provide(as = dyn Mailer)]` on a field of type `Arc<dyn Mailer>` or `Box<dyn Mailer>` provides the target of the
/// pointer, so that nodes inject `&dyn Mailer`.
///
/// A node finds a service by its type, so two fields of one type are a compile error: wrap one of them in a type of its
/// own, or mark it `#[provide(skip)]`. `#[provide(crate = path)]` on the struct names the path of this crate, for a
/// crate that re-exports it.
pub use agentflow_macros::Provide;

/// Turns an `async fn` into a durable task: a background task that is stored with its arguments before it runs, and runs
/// again if the process dies.
///
/// The function is left as it is. The macro adds a handle, a type with the function's name, by which a graph registers the
/// task, `tasks { deliver }`, and a node spawns it, `create_durable_task::<deliver>(args)`.
///
/// ```
/// use agentflow::{AgentState, BackgroundTaskManager, NodeError, Provide, RunConfig, graph, node, task};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Outgoing {
///     to: String,
///     text: String,
/// }
///
/// struct Smtp;
///
/// #[task(name = "mail.deliver")]
/// async fn deliver(args: Outgoing, #[inject] smtp: &Smtp, attempt: u32) -> Result<(), std::io::Error> {
///     println!("attempt {attempt}: to {}, {}", args.to, args.text);
///     Ok(())
/// }
///
/// #[node]
/// async fn send(_state: &mut AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
///     let mail = Outgoing { to: "ada@example.com".to_owned(), text: "Your report is ready.".to_owned() };
///     task_manager.create_durable_task::<deliver>(mail).retry(5).spawn()?;
///     Ok(())
/// }
///
/// let app = graph! {
///     send -> END;
///     tasks { deliver }
///     compile { services: Smtp }
/// };
/// ```
///
/// Parameters are chosen by **name** and checked by type. All are optional, and their order is free:
///
/// | parameter | type | value |
/// |---|---|---|
/// | `args` | `T: Serialize + DeserializeOwned + Send` | the arguments: one value, which is stored as JSON; without it the task takes `()` |
/// | `attempt` | `u32` | the number of the attempt, from 1: one more than the number of failed ones |
/// | `task` | [`&DurableTaskContext`](task::DurableTaskContext) | the task's own id, progress and cancellation |
/// | `cancel` | [`&CancellationToken`](CancellationToken) | the task's token, for work that it starts |
/// | `#[inject] smtp` | `&Smtp` | a service of the app that runs the task, which is borrowed: see [`Provide`] |
///
/// A task returns nothing, or `Result<(), E>` with any error that converts into [`NodeError`]. What it finds out goes into a
/// thread or a stored item.
///
/// The task is stored under the function's name, or under the name in `#[task(name = "mail.deliver")]`. Another process
/// finds it by that name, so a function that is renamed keeps the old name in the attribute. A crate that re-exports this
/// one specifies its path: `#[task(crate = my_crate::agentflow)]`.
pub use agentflow_macros::task;

pub use durable::{DurableTasks, Item, Items, StuckTask};
#[cfg(feature = "schedule")]
pub use durable::{Schedule, ScheduleError, ScheduleInfo};
pub use error::NodeError;
pub use graph::{CompileOptions, CompiledGraph, END, EachOptions, JOIN, NodeOptions, START, StateGraph};
pub use message::{AgentState, Message};
pub use node::{Provide, Route};
pub use question::Ask;
pub use retry::RetryPolicy;
pub use run::{EventWriter, NodeFailure, RunConfig, RunError, RunId};
pub use shutdown::ShutdownReport;
pub use state::State;
pub use task::{BackgroundTaskManager, CancellationToken, TaskContext};

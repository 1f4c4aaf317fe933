//! All that generated code may name, and nothing else. Not part of the API.
//!
//! The traits here carry rustc's messages for mistakes in a node's signature: a parameter is chosen by its name and
//! checked by its trait, so that aliases and generics are seen through.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

pub use std::{marker::PhantomData, option::Option, result::Result, time::Duration};

pub use crate::state::generated as state;
pub use crate::{
    AgentState, BackgroundTaskManager, CompileOptions, CompiledGraph, END, NodeError, NodeOptions, Provide, Route,
    State, StateGraph,
    graph::{Node, NodeContext, ParallelContext, ParallelNode, Subgraph},
    state::{FieldChange, Update},
};
use crate::{EventWriter, NodeFailure, config::RunConfig, graph::EdgeTarget};

/// What a context must be for a graph to be run by several threads.
pub trait Context: Send + Sync + 'static {}
impl<C: Send + Sync + 'static> Context for C {}

/// A type that `#[node]` made: it can be named in `graph!` without a value at hand. `R` is the route it returns.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a node that runs on state `{S}`",
    label = "not a node of this graph",
    note = "annotate an `async fn` with `#[agentflow::node]`; a value that implements `Node` is named first: `node NAME = (value);`",
    note = "every node of one graph takes the same `state` type"
)]
pub trait Handle<S, C, R>: Node<S, C, Output = R> {
    /// The handle itself. Where it is no node of this state, rustc knows nothing here, and does not ask if it can run in a
    /// group.
    type This: Node<S, C, Output = R>;
    const HANDLE: Self::This;
}

/// What a node returns where no decision follows it.
#[diagnostic::on_unimplemented(
    message = "this node returns the route `{Self}`, and the graph does not use it",
    label = "a decision on it must follow, without a router: `-> match {{ .. }}`"
)]
pub trait Unrouted {}

#[diagnostic::do_not_recommend]
impl Unrouted for () {}

/// What a node returns where `match { .. }` follows it.
#[diagnostic::on_unimplemented(
    message = "the node before this `match` returns no route",
    label = "name a function of the state, `match router {{ .. }}`, or let the node return a route",
    note = "a route is an enum with `#[derive(Route)]`, or `bool`"
)]
pub trait Routed {
    /// The route itself. Without an impl for all routes rustc knows nothing here where there is none, and takes no offence
    /// at the patterns.
    type Value;
    fn value(self) -> Self::Value;
}

#[diagnostic::do_not_recommend]
impl Routed for bool {
    type Value = Self;
    fn value(self) -> Self {
        self
    }
}

/// A state in an app with context `C`. A bound that names `C` is not one that rustc takes for false from the start, and
/// reports wherever it stands.
pub trait StateIn<C>: State {}
impl<S: State, C> StateIn<C> for S {}

/// How a node takes the state, and so what it may return to change it.
pub trait Form {
    type State;
    type Context;
}

/// `state: &mut S`, or no state: what is to be changed is changed already.
#[derive(Debug)]
pub struct InPlace<S, C>(PhantomData<(S, C)>);
/// `state: &S`: changed by an update, if at all.
#[derive(Debug)]
pub struct Reads<S, C>(PhantomData<(S, C)>);
/// `state: S`: replaced by the one that the node returns.
#[derive(Debug)]
pub struct Owns<S, C>(PhantomData<(S, C)>);

macro_rules! forms {
    ($($Form:ident),*) => {$(
        impl<S, C> Form for $Form<S, C> {
            type State = S;
            type Context = C;
        }
    )*};
}
forms!(InPlace, Reads, Owns);

/// What a node may return.
#[diagnostic::on_unimplemented(
    message = "a node cannot return `{Self}`",
    label = "not a node's result",
    note = "a node with `state: &mut S`, or without state, returns nothing",
    note = "a node with `state: &S` returns nothing or an update: `S::update()`",
    note = "a node with `state: S` returns the new state",
    note = "each of them may return a route (`#[derive(Route)]`, or `bool`), instead of nothing or beside what it returns, in a tuple",
    note = "each of them may also be the `Ok` of a `Result`, with any error that converts into `NodeError`"
)]
pub trait Returns<F: Form> {
    /// What it tells the graph.
    type Route;
    /// Commits the change that the result brings.
    fn finish(self, cx: NodeContext<'_, F::State, F::Context>) -> Result<Self::Route, NodeError>;
}

/// What a node may return in a group: an update, or nothing.
#[diagnostic::on_unimplemented(
    message = "a node in a group cannot return `{Self}`",
    label = "returns `{Self}`",
    note = "a node in a group returns an update, `{S}::update()`, or nothing",
    note = "a branch does not decide: the decision comes after the group"
)]
pub trait ReturnsUpdate<S: State, C> {
    fn into_update(self) -> Result<Option<S::Update>, NodeError>;
}

macro_rules! returns {
    ($([$($generics:tt)*] $Form:ty: $Result:ty => $Route:ty, |$this:pat_param, $cx:pat_param| $finish:expr;)*) => {$(
        #[diagnostic::do_not_recommend]
        impl<$($generics)*> Returns<$Form> for $Result {
            type Route = $Route;
            fn finish(
                self,
                $cx: NodeContext<'_, <$Form as Form>::State, <$Form as Form>::Context>,
            ) -> Result<$Route, NodeError> {
                let $this = self;
                Ok($finish)
            }
        }
    )*};
}
returns! {
    [S, C] InPlace<S, C>: () => (), |(), _| ();
    // Other routes have impls of their own, which their derive makes: with one for all, rustc would take any result for a
    // route.
    [S, C] InPlace<S, C>: bool => bool, |route, _| route;
    [S, C] Reads<S, C>: () => (), |(), _| ();
    [S, C] Reads<S, C>: bool => bool, |route, _| route;
    [U: Update<State: State<Update = U>>, C] Reads<U::State, C>: U => (), |update, mut cx| cx.apply(update);
    [U: Update<State: State<Update = U>>, C, R: Route] Reads<U::State, C>: (U, R) => R, |(update, route), mut cx| {
        cx.apply(update);
        route
    };
    [S, C] Owns<S, C>: S => (), |state, cx| cx.replace(state);
    [S, C, R: Route] Owns<S, C>: (S, R) => R, |(state, route), cx| {
        cx.replace(state);
        route
    };
    // A single impl for the results of all forms would overlap with that of `Owns`, where every type is a result.
    [S, C, T: Returns<InPlace<S, C>>, E: Into<NodeError>] InPlace<S, C>: Result<T, E> => T::Route,
        |result, cx| T::finish(result.map_err(Into::into)?, cx)?;
    [S, C, T: Returns<Reads<S, C>>, E: Into<NodeError>] Reads<S, C>: Result<T, E> => T::Route,
        |result, cx| T::finish(result.map_err(Into::into)?, cx)?;
    [S, C, E: Into<NodeError>] Owns<S, C>: Result<S, E> => (), |result, cx| cx.replace(result.map_err(Into::into)?);
    [S, C, R: Route, E: Into<NodeError>] Owns<S, C>: Result<(S, R), E> => R, |result, cx| {
        let (state, route) = result.map_err(Into::into)?;
        cx.replace(state);
        route
    };
}

#[diagnostic::do_not_recommend]
impl<S: State, C> ReturnsUpdate<S, C> for () {
    fn into_update(self) -> Result<Option<S::Update>, NodeError> {
        Ok(None)
    }
}

#[diagnostic::do_not_recommend]
impl<U: Update<State: State<Update = U>>, C> ReturnsUpdate<U::State, C> for U {
    fn into_update(self) -> Result<Option<U>, NodeError> {
        Ok(Some(self))
    }
}

#[diagnostic::do_not_recommend]
impl<S: State, C, T: ReturnsUpdate<S, C>, E: Into<NodeError>> ReturnsUpdate<S, C> for Result<T, E> {
    fn into_update(self) -> Result<Option<S::Update>, NodeError> {
        self.map_err(Into::into)?.into_update()
    }
}

/// Where a result that a node cannot return is reported, once.
pub const fn result<T: Returns<F>, F: Form>() {}

/// The type of the `config` parameter.
#[diagnostic::on_unimplemented(
    message = "the `config` parameter of a node cannot be `{Self}`",
    label = "write `&RunConfig`"
)]
pub trait ConfigParam<'a> {
    fn take(given: &'a RunConfig) -> Self;
}

#[diagnostic::do_not_recommend]
impl<'a> ConfigParam<'a> for &'a RunConfig {
    fn take(given: &'a RunConfig) -> Self {
        given
    }
}

/// The type of the `task_manager` parameter.
#[diagnostic::on_unimplemented(
    message = "the `task_manager` parameter of a node cannot be `{Self}`",
    label = "write `&BackgroundTaskManager`"
)]
pub trait TaskManagerParam<'a> {
    fn take(given: &'a BackgroundTaskManager) -> Self;
}

#[diagnostic::do_not_recommend]
impl<'a> TaskManagerParam<'a> for &'a BackgroundTaskManager {
    fn take(given: &'a BackgroundTaskManager) -> Self {
        given
    }
}

/// The type of the `events` parameter.
#[diagnostic::on_unimplemented(
    message = "the `events` parameter of a node cannot be `{Self}`",
    label = "write `&EventWriter`"
)]
pub trait EventsParam<'a> {
    fn take(given: &'a EventWriter) -> Self;
}

#[diagnostic::do_not_recommend]
impl<'a> EventsParam<'a> for &'a EventWriter {
    fn take(given: &'a EventWriter) -> Self {
        given
    }
}

/// The type of the `cancel` parameter.
#[diagnostic::on_unimplemented(
    message = "the `cancel` parameter of a node cannot be `{Self}`",
    label = "write `&CancellationToken`"
)]
pub trait CancelParam<'a> {
    fn take(given: &'a CancellationToken) -> Self;
}

#[diagnostic::do_not_recommend]
impl<'a> CancelParam<'a> for &'a CancellationToken {
    fn take(given: &'a CancellationToken) -> Self {
        given
    }
}

/// The type of the `attempt` parameter.
#[diagnostic::on_unimplemented(message = "the `attempt` parameter of a node cannot be `{Self}`", label = "write `u32`")]
pub trait AttemptParam {
    fn take(given: u32) -> Self;
}

#[diagnostic::do_not_recommend]
impl AttemptParam for u32 {
    fn take(given: u32) -> Self {
        given
    }
}

/// The type of the `error` parameter.
#[diagnostic::on_unimplemented(
    message = "the `error` parameter of a node cannot be `{Self}`",
    label = "write `Option<&NodeFailure>`"
)]
pub trait ErrorParam<'a> {
    fn take(given: Option<&'a NodeFailure>) -> Self;
}

#[diagnostic::do_not_recommend]
impl<'a> ErrorParam<'a> for Option<&'a NodeFailure> {
    fn take(given: Option<&'a NodeFailure>) -> Self {
        given
    }
}

/// The `state` parameter as `&mut S`: here, and nowhere else in a node, a type that is no state is reported.
pub fn state_mut<S: State>(state: &mut S) -> &mut S {
    state
}

/// The `state` parameter as `&S`.
pub fn state_ref<S: State>(state: &S) -> &S {
    state
}

/// The `state` parameter as `S`. A copy: the node may fail, and then the run still has the state as it was.
pub fn state_owned<S: State>(state: &S) -> S {
    state.clone()
}

/// In the place of an option's value that is not written yet.
#[must_use]
pub fn missing<T>() -> T {
    unreachable!("a graph with mistakes does not compile")
}

/// The value itself, in a place of which the caller says where it is.
pub fn itself<T>(value: T) -> T {
    value
}

/// A mistake in a graph, evaluated when the user's crate is compiled; rustc shows it at the call.
#[track_caller]
pub const fn mistake(text: &str) {
    panic!("{}", text)
}

/// Where an arm leads: its pattern, and a step's name, or `None` for END.
pub type Arm = (&'static str, Option<&'static str>);

/// Methods, so that the graph's state is known before a node's is looked at.
#[doc(hidden)]
impl<S, C: Context> StateGraph<S, C> {
    /// An empty graph with `type State = ..`. The state comes by way of its update: a type that is no state has none, and
    /// rustc, not knowing the graph's state then, takes no offence at the calls behind.
    #[must_use]
    pub fn __of<T: State<Update: Update<State = S>>>() -> Self
    where
        S: State,
    {
        Self::new()
    }

    pub fn __node<N: Handle<S, C, R>, R: Unrouted>(&mut self, name: &'static str)
    where
        S: State,
    {
        self.add_routed(name.into(), N::HANDLE, |_, _| Ok(0));
    }

    /// An empty graph with the state and context of this one, around it.
    #[must_use]
    pub fn __inside(&self) -> Self
    where
        S: State,
    {
        Self::new()
    }

    pub fn __add(&mut self, name: &'static str, node: impl Node<S, C, Output = ()>)
    where
        S: State,
    {
        self.add_node(name, node);
    }

    pub fn __branch<N: Handle<S, C, R, This = T>, R, T: ParallelNode<S, C>>(&mut self, name: &'static str)
    where
        S: State,
    {
        self.add_parallel_node(name, N::HANDLE);
    }

    pub fn __group(&mut self, name: &'static str, branches: &[&[&'static str]]) {
        self.add_group(name, branches.iter().map(|branch| branch.iter().copied()));
    }

    /// A node that says itself which of the arms to take.
    pub fn __deciding<N: Handle<S, C, R>, R: Routed<Value = V>, V>(
        &mut self,
        name: &'static str,
        choose: impl Fn(&S, V) -> usize + Send + Sync + 'static,
        arms: &[Arm],
    ) where
        S: State,
    {
        self.__deciding_value::<R, V>(name, N::HANDLE, choose, arms);
    }

    pub fn __deciding_value<R: Routed<Value = V>, V>(
        &mut self,
        name: &'static str,
        node: impl Node<S, C, Output = R>,
        choose: impl Fn(&S, V) -> usize + Send + Sync + 'static,
        arms: &[Arm],
    ) where
        S: State,
    {
        self.add_routed(name.into(), node, move |state, route: R| Ok(choose(state, route.value())));
        self.add_arms(name.into(), None, targets(arms), Vec::new());
    }

    /// A decision from the state.
    pub fn __route(&mut self, from: &'static str, choose: impl Fn(&S) -> usize + Send + Sync + 'static, arms: &[Arm])
    where
        S: 'static,
    {
        let choose = move |state: &S| Ok(choose(state));
        self.add_arms(from.into(), Some(Box::new(choose)), targets(arms), Vec::new());
    }
}

fn targets(arms: &[Arm]) -> Vec<(Arc<str>, EdgeTarget)> {
    let target = |to: Option<&str>| to.map_or_else(|| END.into(), EdgeTarget::from);
    arms.iter().map(|(label, to)| ((*label).into(), target(*to))).collect()
}

/// The part of a graph that is written inside it.
///
/// # Panics
///
/// As [`compiled`].
#[must_use]
#[allow(clippy::panic, reason = "as for `compiled`")]
pub fn subgraph<S: State, C: Context>(graph: StateGraph<S, C>) -> Subgraph<S, C> {
    match Subgraph::new(graph) {
        Ok(subgraph) => subgraph,
        Err(error) => panic!("bug in `graph!`: {error}"),
    }
}

/// Compiles what `graph!` has checked.
///
/// # Panics
///
/// Where `graph!` lets through what the builder refuses, which is a bug of `graph!`.
#[must_use]
#[allow(clippy::panic, reason = "`graph!` has the builder's rules; that it broke one is for its developers to hear")]
pub fn compiled<S: State, C: Context>(graph: StateGraph<S, C>, options: CompileOptions<C>) -> CompiledGraph<S, C> {
    match graph.compile(options) {
        Ok(app) => app,
        Err(error) => panic!("bug in `graph!`: {error}"),
    }
}

/// The value of a `graph!` with mistakes: it has the type, and never runs, because the mistakes don't compile.
#[must_use]
pub fn poisoned<S: State, C: Context>(_: StateGraph<S, C>, _: CompileOptions<C>) -> CompiledGraph<S, C> {
    unreachable!("a graph with mistakes does not compile")
}

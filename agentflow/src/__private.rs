//! All that generated code may name, and nothing else. Not part of the API.
//!
//! The traits here carry rustc's messages for mistakes in a node's signature: a parameter is chosen by its name and
//! checked by its trait, so that aliases and generics are seen through.

use tokio_util::sync::CancellationToken;

pub use std::{marker::PhantomData, result::Result, string::String, time::Duration};

pub use crate::state::generated as state;
pub use crate::{
    AgentState, BackgroundTaskManager, CompileOptions, CompiledGraph, END, Node, NodeContext, NodeError,
    Provide, State, StateGraph,
};
use crate::{EventWriter, RunConfig, Target, Update};

/// What a context must be for a graph to be run by several threads.
pub trait Context: Send + Sync + 'static {}
impl<C: Send + Sync + 'static> Context for C {}

/// A type that `#[node]` made: it can be named in `graph!` without a value at hand.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a node that runs on state `{S}`",
    label = "not a node of this graph",
    note = "annotate an `async fn` with `#[agentflow::node]`; a value that implements `Node` is named first: `node NAME = (value);`",
    note = "every node of one graph takes the same `state` type"
)]
pub trait Handle<S, C, R>: Node<S, C, Output = R> {
    const HANDLE: Self;
}

/// How a node takes the state `S`, and so what it may return to change it. `C` is the app's context: a bound that
/// names it is not one that rustc takes for false from the start and reports where it stands.
pub trait Form {
    type State;
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

impl<S, C> Form for InPlace<S, C> {
    type State = S;
}
impl<S, C> Form for Reads<S, C> {
    type State = S;
}
impl<S, C> Form for Owns<S, C> {
    type State = S;
}

/// What a node may return.
#[diagnostic::on_unimplemented(
    message = "a node cannot return `{Self}`",
    label = "not a node's result",
    note = "a node with `state: &mut S`, or without state, returns nothing",
    note = "a node with `state: &S` returns nothing or an update: `S::update()`",
    note = "a node with `state: S` returns the new state",
    note = "each of them may also be the `Ok` of a `Result`, with any error that converts into `NodeError`"
)]
pub trait Returns<F: Form> {
    /// What it tells the graph.
    type Route;
    /// Commits the change that the result brings.
    fn finish(self, state: &mut F::State) -> Result<Self::Route, NodeError>;
}

#[diagnostic::do_not_recommend]
impl<S, C> Returns<InPlace<S, C>> for () {
    type Route = ();
    fn finish(self, _: &mut S) -> Result<(), NodeError> {
        Ok(())
    }
}

#[diagnostic::do_not_recommend]
impl<S, C> Returns<Reads<S, C>> for () {
    type Route = ();
    fn finish(self, _: &mut S) -> Result<(), NodeError> {
        Ok(())
    }
}

#[diagnostic::do_not_recommend]
impl<U: Update, C> Returns<Reads<U::State, C>> for U
where
    U::State: State<Update = U>,
{
    type Route = ();
    fn finish(self, state: &mut U::State) -> Result<(), NodeError> {
        state.apply(self);
        Ok(())
    }
}

#[diagnostic::do_not_recommend]
impl<S, C> Returns<Owns<S, C>> for S {
    type Route = ();
    fn finish(self, state: &mut S) -> Result<(), NodeError> {
        *state = self;
        Ok(())
    }
}

/// One impl per form: a single one for all would overlap with that of `Owns`, where every type is a result.
macro_rules! fallible {
    ($($Form:ident: $T:ident),*) => {$(
        #[diagnostic::do_not_recommend]
        impl<S, C, $T: Returns<$Form<S, C>>, E: Into<NodeError>> Returns<$Form<S, C>> for Result<$T, E> {
            type Route = $T::Route;
            fn finish(self, state: &mut S) -> Result<$T::Route, NodeError> {
                $T::finish(self.map_err(Into::into)?, state)
            }
        }
    )*};
}
fallible!(InPlace: T, Reads: T);

#[diagnostic::do_not_recommend]
impl<S, C, E: Into<NodeError>> Returns<Owns<S, C>> for Result<S, E> {
    type Route = ();
    fn finish(self, state: &mut S) -> Result<(), NodeError> {
        *state = self.map_err(Into::into)?;
        Ok(())
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

/// An empty graph with `type State = ..`. A function, not `StateGraph::new`: rustc shows a type that is no state at the
/// type.
#[must_use]
pub fn graph<S: State, C: Context>() -> StateGraph<S, C> {
    StateGraph::new()
}

/// In the place of an option's value that is not written yet.
#[must_use]
pub fn missing<T>() -> T {
    unreachable!("a graph with mistakes does not compile")
}

/// The bounds are on the methods: where a node's state is none, each call then has the same mistake, which rustc tells
/// once. Bounds on the `impl` would hide the methods, and each of them would be missed on its own.
impl<S, C> StateGraph<S, C> {
    /// A method, so that the graph's state is known before the node's is looked at.
    pub fn __node<N>(&mut self, name: &'static str)
    where
        S: State,
        C: Context,
        N: Handle<S, C, ()>,
    {
        self.add_node(name, N::HANDLE);
    }

    pub fn __add<N>(&mut self, name: &'static str, node: N)
    where
        S: State,
        C: Context,
        N: Node<S, C, Output = ()>,
    {
        self.add_node(name, node);
    }

    pub fn __edge(&mut self, from: &'static str, to: impl Into<Target>)
    where
        S: State,
        C: Context,
    {
        self.add_edge(from, to);
    }

    pub fn __entry(&mut self, node: &'static str)
    where
        S: State,
        C: Context,
    {
        self.set_entry_point(node);
    }
}

/// Compiles what `graph!` has checked.
///
/// # Panics
///
/// Where `graph!` lets through what the builder refuses, which is a bug of `graph!`.
#[must_use]
#[allow(
    clippy::panic,
    reason = "`graph!` has the builder's rules; that it broke one is for its developers to hear"
)]
pub fn compiled<S: State, C: Context>(
    graph: StateGraph<S, C>,
    options: CompileOptions<C>,
) -> CompiledGraph<S, C> {
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

//! Hooks for generated code. Not part of the public API.
//!
//! The macros refer to the runtime through this module only; paths of the standard library are written `::core::..`.
//! The traits carry rustc's messages for mistakes in a node's signature. A parameter is chosen by its name and its type
//! is checked by a trait bound, so that aliases and generic types work.

use std::{marker::PhantomData, sync::Arc};

pub use tokio_util::sync::CancellationToken;

use crate::graph::{BuildError, BuildProblem, BuildProblemKind, EdgeTarget};
pub use crate::state::generated as state;
pub use crate::{
    AgentState, BackgroundTaskManager, CompileOptions, CompiledGraph, END, EventWriter, NodeError, NodeFailure,
    NodeOptions, Provide, Route, State, StateGraph,
    config::RunConfig,
    graph::{Node, NodeContext, ParallelContext, ParallelNode, Subgraph},
    state::{FieldChange, Update},
};

/// Services that several threads may use, as a graph needs them.
pub trait Context: Send + Sync + 'static {}
impl<C: Send + Sync + 'static> Context for C {}

/// A type that `#[node]` made, which `graph!` can add by its type alone. `R` is the route that the node returns.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a node that runs on state `{S}`",
    label = "not a node of this graph",
    note = "annotate an `async fn` with `#[agentflow::node]`; a value that implements `Node` is named first: `node NAME = (value);`",
    note = "every node of one graph takes the same `state` type"
)]
pub trait Handle<S, C, R>: Node<S, C, Output = R> {
    /// The handle itself. If the type is not a node of this state, rustc cannot resolve this type and therefore does not
    /// also report that the node cannot run in a group.
    type This: Node<S, C, Output = R>;
    const HANDLE: Self::This;
}

/// The result of a node that no decision follows.
#[diagnostic::on_unimplemented(
    message = "this node returns the route `{Self}`, and the graph does not use it",
    label = "a decision on it must follow, without a router: `-> match {{ .. }}`"
)]
pub trait Unrouted {}

#[diagnostic::do_not_recommend]
impl Unrouted for () {}

/// The result of a node that `match { .. }` follows.
#[diagnostic::on_unimplemented(
    message = "the node before this `match` returns no route",
    label = "name a function of the state, `match router {{ .. }}`, or let the node return a route",
    note = "a route is an enum with `#[derive(Route)]`, or `bool`"
)]
pub trait Routed {
    /// The route itself. There is no impl for all types, so that rustc leaves this type open where the node returns no
    /// route, and does not report the patterns too.
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

/// A state in an app with services `C`. Because the bound names `C`, rustc does not treat it as trivially false and does
/// not report it at every use.
pub trait StateIn<C>: State {}
impl<S: State, C> StateIn<C> for S {}

/// The form in which a node takes the state. It determines the results that the node may return.
pub trait Form {
    type State;
    type Context;
}

/// `state: &mut S`, or no state: the node has already made its changes when it returns.
#[derive(Debug)]
pub struct InPlace<S, C>(PhantomData<(S, C)>);
/// `state: &S`: the node may return an update.
#[derive(Debug)]
pub struct Reads<S, C>(PhantomData<(S, C)>);
/// `state: S`: the node returns the new state.
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

/// A result that a node may return.
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
    /// The route that the graph follows.
    type Route;
    /// Commits the change that the result brings.
    fn finish(self, cx: NodeContext<'_, F::State, F::Context>) -> Result<Self::Route, NodeError>;
}

/// A result that a node in a group may return: an update, or nothing.
#[diagnostic::on_unimplemented(
    message = "a node in a group cannot return `{Self}`",
    label = "returns `{Self}`",
    note = "a node in a group returns an update, `{S}::update()`, or nothing",
    note = "a branch cannot return a route: put the decision after the group"
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
    // `#[derive(Route)]` writes the impls for other routes: with a blanket impl rustc would treat any result as a route.
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

/// Checks a node's result type, so that rustc reports a wrong one exactly once.
pub const fn result<T: Returns<F>, F: Form>() {}

/// The type of a parameter that the runtime fills with a value of type `Given`.
#[diagnostic::on_unimplemented(message = "this parameter of a node cannot be `{Self}`", label = "write `{Given}`")]
pub trait Accepts<Given> {
    fn accept(given: Given) -> Self;
}

#[diagnostic::do_not_recommend]
impl<T> Accepts<T> for T {
    fn accept(given: T) -> T {
        given
    }
}

/// Passes the `state` parameter as `&mut S`. rustc reports a type that is not a state here and nowhere else in the node.
pub fn state_mut<S: State>(state: &mut S) -> &mut S {
    state
}

/// Passes the `state` parameter as `&S`.
pub fn state_ref<S: State>(state: &S) -> &S {
    state
}

/// Clones the state for a `state: S` parameter: if the node fails, the run still has the state as it was.
pub fn state_owned<S: State>(state: &S) -> S {
    state.clone()
}

/// Stands for an option's value that is not written yet.
#[must_use]
pub fn missing<T>() -> T {
    unreachable!("a graph with mistakes does not compile")
}

/// A service as `#[derive(Provide)]` names it: as an argument, `dyn Trait` is `'static`, as in the impl's header.
pub type Service<T> = T;

/// Returns its argument. The macro gives the call the span at which rustc reports the value.
pub fn itself<T>(value: T) -> T {
    value
}

/// Fails the evaluation of a constant with this text; rustc shows it at the call.
#[track_caller]
pub const fn mistake(text: &str) {
    panic!("{}", text)
}

/// An arm: its pattern, and the name of the step it leads to, or `None` for END.
pub type Arm = (&'static str, Option<&'static str>);

/// These are methods, so that rustc infers the graph's state before it checks the state of a node.
#[doc(hidden)]
impl<S, C: Context> StateGraph<S, C> {
    /// Creates an empty graph for `type State = ..`. The state is inferred through its update type: if the type is not a
    /// state, rustc leaves the graph's state open and does not report the calls that follow.
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

    /// Creates an empty graph with the state and services of this one, for an inner graph.
    #[must_use]
    pub fn __inside(&self) -> Self
    where
        S: State,
    {
        Self::new()
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

    /// Adds a node whose returned route selects the arm.
    pub fn __deciding<N: Handle<S, C, R>, R: Routed<Value = V>, V>(
        &mut self,
        name: &'static str,
        router: impl Fn(&S, V) -> usize + Send + Sync + 'static,
        arms: &[Arm],
    ) where
        S: State,
    {
        self.__deciding_value::<R, V>(name, N::HANDLE, router, arms);
    }

    pub fn __deciding_value<R: Routed<Value = V>, V>(
        &mut self,
        name: &'static str,
        node: impl Node<S, C, Output = R>,
        router: impl Fn(&S, V) -> usize + Send + Sync + 'static,
        arms: &[Arm],
    ) where
        S: State,
    {
        self.add_routed(name.into(), node, move |state, route: R| Ok(router(state, route.value())));
        self.add_arms(name.into(), None, targets(arms), Vec::new());
    }

    /// Adds a decision that a router makes from the state.
    pub fn __route(&mut self, from: &'static str, router: impl Fn(&S) -> usize + Send + Sync + 'static, arms: &[Arm])
    where
        S: 'static,
    {
        let router = move |state: &S| Ok(router(state));
        self.add_arms(from.into(), Some(Box::new(router)), targets(arms), Vec::new());
    }
}

fn targets(arms: &[Arm]) -> Vec<(Arc<str>, EdgeTarget)> {
    let target = |to: Option<&str>| to.map_or_else(|| END.into(), EdgeTarget::from);
    arms.iter().map(|(label, to)| ((*label).into(), target(*to))).collect()
}

/// Compiles a graph that is written inside another one.
///
/// # Panics
///
/// Panics for the same reason as [`compiled`].
#[must_use]
#[track_caller]
#[allow(clippy::panic, reason = "as for `compiled`")]
pub fn subgraph<S: State, C: Context>(graph: StateGraph<S, C>) -> Subgraph<S, C> {
    match Subgraph::new(graph) {
        Ok(subgraph) => subgraph,
        Err(error) => panic!("{}", refusal(&error)),
    }
}

/// Compiles a graph that `graph!` has checked.
///
/// # Panics
///
/// Panics if the builder refuses a graph that `graph!` accepted: a graph that is a value is nested too deep or has an option
/// that has no effect there, or there is a bug in `graph!`.
#[must_use]
#[track_caller]
#[allow(clippy::panic, reason = "`graph!` has the builder's rules; a graph that breaks one is a bug of the macro")]
pub fn compiled<S: State, C: Context>(graph: StateGraph<S, C>, options: CompileOptions<C>) -> CompiledGraph<S, C> {
    match graph.compile(options) {
        Ok(app) => app,
        Err(error) => panic!("{}", refusal(&error)),
    }
}

/// Returns the text of a panic of `graph!`.
fn refusal(error: &BuildError) -> String {
    // The macro cannot see what is inside a value.
    let is_of_values = |problem: &BuildProblem| {
        matches!(problem.kind, BuildProblemKind::TooDeep { .. } | BuildProblemKind::OuterOption { .. })
    };
    if error.problems().iter().all(is_of_values) { error.to_string() } else { format!("bug in `graph!`: {error}") }
}

/// Stands for the value of a `graph!` with mistakes. It has the graph's type and never runs, because such a program
/// does not compile.
#[must_use]
pub fn poisoned<S: State, C: Context>(_: StateGraph<S, C>, _: CompileOptions<C>) -> CompiledGraph<S, C> {
    unreachable!("a graph with mistakes does not compile")
}

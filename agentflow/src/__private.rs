//! Hooks for generated code. Not part of the public API.
//!
//! The macros refer to the runtime through this module only; paths of the standard library are written `::core::..`.
//! The traits carry rustc's messages for mistakes in a node's signature. A parameter is chosen by its name and its type
//! is checked by a trait bound, so that aliases and generic types work.

use std::marker::PhantomData;

use serde_json::Value;
pub use tokio_util::sync::CancellationToken;

pub use crate::carried::{Input, InputType, ItemList, Slot, TypedItems};
use crate::graph::{
    ArmDeclaration, BuildError, BuildProblem, BuildProblemKind, EdgeTarget, WorkDeclaration,
    plan::{Each, GroupKind, RoutedNode},
};
pub use crate::state::generated as state;
pub use crate::{
    AgentState, BackgroundTaskManager, CompileOptions, CompiledGraph, END, EachOptions, EventWriter, JOIN, NodeError,
    NodeFailure, NodeOptions, Provide, Route, State, StateGraph,
    config::RunConfig,
    graph::{Node, NodeContext, NodeInfo, ParallelContext, ParallelNode, ParallelSubgraph, Subgraph},
    question::{AnswerValue, QuestionValue},
    run::StepId,
    state::{FieldChange, Update},
    store::{Keeps, KeepsInput, Persistence},
    task::{DurableSink, DurableTaskContext, RunTask, Task, TaskArgs, TaskAttempt, TaskError},
};
use crate::{
    Ask,
    question::{AnswerType, QuestionType},
};

/// Services that several threads may use, as a graph needs them.
pub trait Context: Send + Sync + 'static {}
impl<C: Send + Sync + 'static> Context for C {}

/// A type that `#[node]` made, which `graph!` can add by its type alone. `R` is the route that the node returns, and `I`
/// is its input.
///
/// It names no services: a graph puts its nodes in their places before it knows the services.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a node that runs on state `{S}`",
    label = "not a node of this graph",
    note = "annotate an `async fn` with `#[agentflow::node]`; a value that implements `Node` is named first: `node NAME = (value);`",
    note = "every node of one graph takes the same `state` type"
)]
pub trait Signature<S, R, I> {
    /// The handle itself. If the type is not a node of this state, rustc cannot resolve this type and therefore reports
    /// nothing else about the node.
    type This;
    /// The durable tasks that the body of the function names: a list of [`Spawned`], `(A, (B, ()))`.
    type Spawns;
    const HANDLE: Self::This;
}

/// The type that stands for the `tasks { .. }` of one graph, if the task `T` is among them.
#[diagnostic::on_unimplemented(
    message = "a node spawns the durable task `{T}`, which the graph does not register",
    label = "spawns `{T}`",
    note = "add it to the graph: `tasks {{ {T} }}`"
)]
pub trait Registers<T> {}

/// A list of durable tasks, all of which the graph with the tasks `K` registers.
pub trait AllRegistered<K> {}
impl<K> AllRegistered<K> for () {}
impl<K: Registers<A>, A, B: AllRegistered<K>> AllRegistered<K> for (Spawned<NameOf<A>, true>, B) {}
impl<K, A, B: AllRegistered<K>> AllRegistered<K> for (Spawned<A, false>, B) {}

/// A type that the body of a node spawns. One that is no durable task is reported where it is spawned.
#[derive(Debug)]
pub struct Spawned<N, const IS_TASK: bool>(PhantomData<N>);

/// The name of a durable task; [`NoName`] has that of a type that is none.
#[derive(Debug)]
pub struct NameOf<T>(PhantomData<T>);

impl<T: Task> NameOf<T> {
    pub const NAME: &'static str = T::NAME;
    pub const IS_TASK: bool = true;
}

/// See [`NameOf`]: rustc finds the constants of the type itself first.
pub trait NoName {
    const NAME: &'static str = "";
    const IS_TASK: bool = false;
}
impl<T> NoName for NameOf<T> {}

/// Fails the evaluation of a constant if another durable task of the graph has the name.
///
/// # Panics
///
/// Panics in that case.
#[track_caller]
pub const fn distinct(name: &str, others: &[&str]) {
    let mut at = 0;
    while at < others.len() {
        let is_same = !name.is_empty() && is_equal(name.as_bytes(), others[at].as_bytes());
        assert!(
            !is_same,
            "another durable task of this graph has the same name: `#[task(name = \"..\")]` gives it one of its own"
        );
        at += 1;
    }
}

const fn is_equal(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// Sets the destination of the durable tasks that are spawned through a manager, for tests.
pub fn set_durable_sink(manager: &BackgroundTaskManager, sink: std::sync::Arc<dyn DurableSink>) {
    manager.set_durable_sink(sink);
}

/// Names a durable task for [`StateGraph::__task`].
#[must_use]
pub const fn task<T>() -> PhantomData<T> {
    PhantomData
}

/// A node of an app with services `C`. It is one bound, so that rustc reports one error.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a node that runs on state `{S}`",
    label = "not a node of this graph",
    note = "annotate an `async fn` with `#[agentflow::node]`, or implement `Node` by hand",
    note = "every node of one graph takes the same `state` type"
)]
pub trait NodeWith<S, C, R, I>: Node<S, C, I, Output = R> {}
impl<S, C, R, I, N: Node<S, C, I, Output = R>> NodeWith<S, C, R, I> for N {}

/// The same as [`NodeWith`], for a node of a branch.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot run in a group on state `{S}`",
    label = "not a node that runs in parallel with others",
    note = "a node in a group reads: take `state: &{S}` and return an update, `{S}::update()`, or nothing",
    note = "a node with `state: &mut {S}` goes before or after the group",
    note = "a graph goes into a group with `map_state`, which says what it brings"
)]
pub trait ParallelNodeWith<S: State, C, R, I>: ParallelNode<S, C, I, Output = R> {}
impl<S: State, C, R, I, N: ParallelNode<S, C, I, Output = R>> ParallelNodeWith<S, C, R, I> for N {}

/// A node that a graph has taken in, without its edges.
#[derive(Debug)]
pub struct Placed<N, R, I> {
    node: N,
    types: PhantomData<fn() -> (R, I)>,
}

/// A route function without its type.
type BoxedRoute<S, R> = Box<dyn Fn(&S, R, &Slot) -> Result<usize, NodeError> + Send + Sync>;

/// A value that a graph has taken in as a node, without its edges. Its type is hidden, so that rustc reports a value that
/// is not a node where it is taken in, and nowhere else.
pub struct PlacedValue<S, C, R>(Declare<S, C, R>);

/// Declares the node, once its route function is known and the type of its input is checked.
type Declare<S, C, R> = Box<dyn FnOnce(BoxedRoute<S, R>, InputType) -> WorkDeclaration<S, C>>;

impl<S, C, R> std::fmt::Debug for PlacedValue<S, C, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PlacedValue").finish_non_exhaustive()
    }
}

/// The type of a node's input, for the edges that lead to it, with the function that hides it.
///
/// The function is chosen where the node is put in its place. An edge therefore needs no bound on the type, which rustc
/// would report in addition to the node's own.
#[derive(Debug)]
pub struct Takes<I> {
    value: fn(I) -> Input,
    items: fn(TypedItems<I>) -> ItemList,
    input: InputType,
}

impl<I> Clone for Takes<I> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<I> Copy for Takes<I> {}

impl<I: Send + Sync + 'static> Takes<I> {
    fn new() -> Self {
        Self { value: Input::new, items: TypedItems::erase, input: InputType::of::<I>() }
    }
}

impl<I: 'static> Takes<I> {
    /// Returns the type of the value that an edge to this node carries.
    #[must_use]
    pub fn carried(&self) -> Option<InputType> {
        Some(self.input)
    }
}

/// Checks that a graph with a store can keep the input of a node, and returns the input with its codec.
#[must_use]
pub fn kept<S, C, P: KeepsInput<I>, I: Send + Sync + 'static>(_: &StateGraph<S, C, P>, takes: Takes<I>) -> Takes<I> {
    Takes { input: P::input(), ..takes }
}

/// The input of a node that plain edges lead to: none.
#[diagnostic::on_unimplemented(
    message = "this node takes the input `{Self}`, and what leads to it here carries none",
    label = "nothing carries `{Self}` to this node here",
    note = "an arm carries a value: `PATTERN(value) => NODE(value)`; so does `each items {{ NODE }}`"
)]
pub trait NoInput {}
#[diagnostic::do_not_recommend]
impl NoInput for () {}

/// Checks an edge that carries no value.
pub fn plain<I: NoInput>(_: Takes<I>) {}

/// A value that an edge carries to a node with input `I`.
#[diagnostic::on_unimplemented(
    message = "this edge carries `{Self}`, and the node takes `{I}`",
    label = "carries `{Self}`, not `{I}`",
    note = "the node's parameter `input` says what it takes; without one it takes nothing, `()`"
)]
pub trait CarriedTo<I> {
    fn carried(self) -> I;
}

// This is the only impl, so that rustc infers the type of an expression such as `calls.into()` from it.
#[diagnostic::do_not_recommend]
impl<T> CarriedTo<T> for T {
    fn carried(self) -> T {
        self
    }
}

/// Puts the value that an arm carries into the slot, and returns the index of the arm.
pub fn carry<T: CarriedTo<I>, I>(to: Takes<I>, value: T, arm: usize, slot: &Slot) -> usize {
    slot.put((to.value)(value.carried()));
    arm
}

/// Collects the items of an `each`; `None` if there are more than the limit.
pub fn items<L: IntoIterator<Item: CarriedTo<I>>, I>(to: Takes<I>, items: L, limit: usize) -> Option<ItemList> {
    TypedItems::collect(items.into_iter().map(CarriedTo::carried), limit).map(to.items)
}

/// The type of a node's input. Several attempts and, in a group, several nodes may borrow the value.
#[diagnostic::on_unimplemented(
    message = "the `input` of a node cannot be `{Self}`",
    label = "not an input",
    note = "an input is `Send + Sync + 'static`: it moves between threads with its run, and branches share it"
)]
pub trait InputValue: Send + Sync + 'static {}
#[diagnostic::do_not_recommend]
impl<T: Send + Sync + 'static> InputValue for T {}

/// Checks the type of a node's input, as [`result`] does for its result.
pub const fn input<T: InputValue>() {}

/// An input that a node takes by value.
#[diagnostic::on_unimplemented(
    message = "the `input` of a node is copied for each attempt, and `{Self}` is not `Clone`",
    label = "write `input: &{Self}`, or derive `Clone`"
)]
pub trait InputByValue: Sized {
    fn copied(input: &Self) -> Self;
}
#[diagnostic::do_not_recommend]
impl<T: Clone> InputByValue for T {
    fn copied(input: &T) -> T {
        input.clone()
    }
}

/// A function with mistakes, which the constant `MISTAKE` reports: rustc reports nothing that depends on a constant that
/// failed.
#[derive(Debug)]
pub struct Mistaken<const MISTAKE: usize>;

/// See [`Mistaken`].
pub trait Reported {
    /// The route and the input of such a function. rustc does not know it, so that it fits everywhere.
    type Any;
}
impl<const MISTAKE: usize> Reported for Mistaken<MISTAKE> {
    type Any = ();
}

/// An input whose type was checked by the constant `VALID`.
#[derive(Debug)]
pub struct CheckedInput<T, const VALID: usize>(PhantomData<T>);

/// See [`CheckedInput`].
pub trait Valid {
    /// The type itself. rustc does not know it where the constant failed, so that it reports nothing else about it.
    type Value: Send + Sync + 'static;
}
#[diagnostic::do_not_recommend]
impl<T: InputValue, const VALID: usize> Valid for CheckedInput<T, VALID> {
    type Value = T;
}

/// A state whose type was checked by the constant `VALID`.
#[derive(Debug)]
pub struct CheckedState<S, const VALID: usize>(PhantomData<S>);

#[diagnostic::do_not_recommend]
impl<S: State, const VALID: usize> Valid for CheckedState<S, VALID> {
    type Value = S;
}

/// Stands for a function with mistakes in a graph. It fits everywhere and never runs, because such a program does not
/// compile.
#[derive(Debug)]
pub struct Stub<R>(PhantomData<fn() -> R>);

impl<R> Stub<R> {
    pub const NEW: Self = Self(PhantomData);
}

impl<S, C, R: 'static, I> Node<S, C, I> for Stub<R>
where
    S: Send + Sync + 'static,
    C: Context,
    I: Send + Sync + 'static,
{
    type Output = R;

    async fn run(&self, _: NodeContext<'_, S, C, I>) -> Result<R, NodeError> {
        unreachable!("a node with mistakes does not compile")
    }
}

impl<S: State, C: Context, R: 'static, I: Send + Sync + 'static> ParallelNode<S, C, I> for Stub<R> {
    type Output = R;

    async fn run_parallel(&self, _: ParallelContext<'_, S, C, I>) -> Result<(Option<S::Update>, R), NodeError> {
        unreachable!("a node with mistakes does not compile")
    }
}

/// The result of a node that no decision follows.
#[diagnostic::on_unimplemented(
    message = "this node returns the route `{Self}`, and the graph does not use it",
    label = "a decision on it must follow, without a router: `-> match {{ .. }}`",
    note = "a function that returns a node without a route says so: `impl Node<S, Output = ()>`, `impl ParallelNode<S, Output = ()>`"
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
pub trait Routed<V> {
    fn value(self) -> V;
}

// There is no impl for all types, so that rustc leaves `V` open where the node returns no route, and does not report the
// patterns too.
#[diagnostic::do_not_recommend]
impl Routed<Self> for bool {
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

/// The form `state: &mut S`, or no state: the node has already made its changes when it returns.
#[derive(Debug)]
pub struct InPlace<S, C>(PhantomData<(S, C)>);
/// The form `state: &S`: the node may return an update.
#[derive(Debug)]
pub struct Reads<S, C>(PhantomData<(S, C)>);
/// The form `state: S`: the node returns the new state.
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
    note = "each of them may also be the `Ok` of a `Result`, with any error that converts into `NodeError`",
    note = "a node with `answer: Option<A>` returns `Ask<Q, T>`, where `T` is one of them"
)]
pub trait Returns<F: Form> {
    /// The route that the graph follows.
    type Route;
    /// Commits the change that the result brings.
    fn finish<I>(self, cx: NodeContext<'_, F::State, F::Context, I>) -> Result<Self::Route, NodeError>;
}

/// A result that a node in a group may return: nothing, an update, a route, or an update with a route.
#[diagnostic::on_unimplemented(
    message = "a node in a group cannot return `{Self}`",
    label = "returns `{Self}`",
    note = "a node in a group returns an update, `{S}::update()`, or nothing",
    note = "it may return a route (`#[derive(Route)]`, or `bool`), instead of nothing or beside the update, in a tuple"
)]
pub trait ReturnsUpdate<S: State, C> {
    type Route;
    fn into_update(self) -> Result<(Option<S::Update>, Self::Route), NodeError>;
}

macro_rules! returns {
    ($([$($generics:tt)*] $Form:ty: $Result:ty => $Route:ty, |$this:pat_param, $cx:pat_param| $finish:expr;)*) => {$(
        #[diagnostic::do_not_recommend]
        impl<$($generics)*> Returns<$Form> for $Result {
            type Route = $Route;
            fn finish<__I>(
                self,
                $cx: NodeContext<'_, <$Form as Form>::State, <$Form as Form>::Context, __I>,
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
    type Route = ();
    fn into_update(self) -> Result<(Option<S::Update>, ()), NodeError> {
        Ok((None, ()))
    }
}

#[diagnostic::do_not_recommend]
impl<S: State, C> ReturnsUpdate<S, C> for bool {
    type Route = Self;
    fn into_update(self) -> Result<(Option<S::Update>, Self), NodeError> {
        Ok((None, self))
    }
}

#[diagnostic::do_not_recommend]
impl<U: Update<State: State<Update = U>>, C> ReturnsUpdate<U::State, C> for U {
    type Route = ();
    fn into_update(self) -> Result<(Option<U>, ()), NodeError> {
        Ok((Some(self), ()))
    }
}

#[diagnostic::do_not_recommend]
impl<U: Update<State: State<Update = U>>, C, R: Route> ReturnsUpdate<U::State, C> for (U, R) {
    type Route = R;
    fn into_update(self) -> Result<(Option<U>, R), NodeError> {
        Ok((Some(self.0), self.1))
    }
}

#[diagnostic::do_not_recommend]
impl<S: State, C, T: ReturnsUpdate<S, C>, E: Into<NodeError>> ReturnsUpdate<S, C> for Result<T, E> {
    type Route = T::Route;
    fn into_update(self) -> Result<(Option<S::Update>, T::Route), NodeError> {
        self.map_err(Into::into)?.into_update()
    }
}

/// A result that a node with `answer` may return: what it would return otherwise, in an `Ask`.
#[diagnostic::on_unimplemented(
    message = "a node with `answer` returns `Ask<Q, T>`, and this one `{Self}`",
    label = "write `Ask<Question, {Self}>`",
    note = "`Ask::Question(question)` pauses the run, `Ask::Done(result)` goes on",
    note = "a node that asks nothing has no `answer` parameter"
)]
pub trait ReturnsAsk<F: Form> {
    type Route;
    fn finish<I>(self, cx: NodeContext<'_, F::State, F::Context, I>) -> Result<Self::Route, NodeError>;
}

// rustc reports the half that is wrong: the question, or the result.
impl<Q: QuestionValue, T: Returns<F>, F: Form> ReturnsAsk<F> for Ask<Q, T> {
    type Route = T::Route;
    fn finish<I>(self, cx: NodeContext<'_, F::State, F::Context, I>) -> Result<T::Route, NodeError> {
        self.into_result()?.finish(cx)
    }
}

#[diagnostic::do_not_recommend]
impl<T: ReturnsAsk<F>, F: Form, E: Into<NodeError>> ReturnsAsk<F> for Result<T, E> {
    type Route = T::Route;
    fn finish<I>(self, cx: NodeContext<'_, F::State, F::Context, I>) -> Result<T::Route, NodeError> {
        self.map_err(Into::into)?.finish(cx)
    }
}

/// The same as [`ReturnsAsk`], for a node in a group.
pub trait ReturnsAskedUpdate<S: State, C> {
    type Route;
    fn into_update(self) -> Result<(Option<S::Update>, Self::Route), NodeError>;
}

impl<Q: QuestionValue, T: ReturnsUpdate<S, C>, S: State, C> ReturnsAskedUpdate<S, C> for Ask<Q, T> {
    type Route = T::Route;
    fn into_update(self) -> Result<(Option<S::Update>, T::Route), NodeError> {
        self.into_result()?.into_update()
    }
}

#[diagnostic::do_not_recommend]
impl<T: ReturnsAskedUpdate<S, C>, S: State, C, E: Into<NodeError>> ReturnsAskedUpdate<S, C> for Result<T, E> {
    type Route = T::Route;
    fn into_update(self) -> Result<(Option<S::Update>, T::Route), NodeError> {
        self.map_err(Into::into)?.into_update()
    }
}

/// Checks the result of a node with `answer`, as [`result`] does for other nodes.
pub const fn ask<T: ReturnsAsk<F>, F: Form>() {}

/// Checks the `Ok` of its `Result`, as [`ok`] does.
pub const fn ask_ok<T: OkOfAsk<F>, F: Form>() {}

/// See [`OkOfNode`].
pub trait OkOfAsk<F> {}
impl<T: ReturnsAsk<F>, E, F: Form> OkOfAsk<F> for (Result<T, E>,) {}

/// The `answer` parameter of a node.
#[diagnostic::on_unimplemented(
    message = "the `answer` parameter of a node cannot be `{Self}`",
    label = "write `Option<A>`, where `A: Deserialize`",
    note = "the answer is `None` until the question is answered"
)]
pub trait AnswerParameter {
    type Answer: AnswerValue;
}

// rustc reports the answer, if it is the one that is wrong.
impl<A: AnswerValue> AnswerParameter for Option<A> {
    type Answer = A;
}

/// Checks the `answer` parameter, as [`result`] does for the result.
pub const fn answer<T: AnswerOfNode>() {}

/// An `answer` parameter, in a tuple as for [`OkOfNode`].
pub trait AnswerOfNode {}
impl<T: AnswerParameter> AnswerOfNode for (T,) {}

/// An `answer` parameter whose type was checked by the constant `VALID`.
#[derive(Debug)]
pub struct CheckedAnswer<T, const VALID: usize>(PhantomData<T>);

/// See [`CheckedAnswer`].
pub trait ValidAnswer {
    type Answer: AnswerValue;
}

#[diagnostic::do_not_recommend]
impl<T: AnswerParameter, const VALID: usize> ValidAnswer for CheckedAnswer<T, VALID> {
    type Answer = T::Answer;
}

/// The result of a node with `answer`, with the type of its question.
pub trait Asks {
    type Question: QuestionValue;
}

impl<Q: QuestionValue, T> Asks for Ask<Q, T> {
    type Question = Q;
}

impl<T: Asks, E> Asks for Result<T, E> {
    type Question = T::Question;
}

#[diagnostic::do_not_recommend]
impl<T: Asks, const VALID: usize> Asks for CheckedAsk<T, VALID> {
    type Question = T::Question;
}

/// Adds the types of a question and its answer to the properties of a node, with their JSON Schemas.
pub const fn asks<R: Asks, A: AnswerValue>(
    info: NodeInfo,
    question: Option<fn() -> Value>,
    answer: Option<fn() -> Value>,
) -> NodeInfo {
    info.asking(QuestionType::of::<R::Question>(question), AnswerType::of::<A>(answer))
}

/// The JSON Schema of a type, if it has one. An associated constant of the type itself hides that of a trait: where the
/// type is not `JsonSchema`, or the feature `schema` is off, the constants are those of [`NoSchema`].
#[derive(Debug)]
pub struct SchemaOf<T>(PhantomData<T>);

/// See [`SchemaOf`].
pub trait NoSchema {
    const QUESTION: Option<fn() -> Value> = None;
    const ANSWER: Option<fn() -> Value> = None;
}
impl<T> NoSchema for SchemaOf<T> {}

#[cfg(feature = "schema")]
impl<T: schemars::JsonSchema> SchemaOf<T> {
    pub const QUESTION: Option<fn() -> Value> = Some(crate::question::schema_of_written::<T>);
    pub const ANSWER: Option<fn() -> Value> = Some(crate::question::schema_of_read::<T>);
}

/// A node that asks no question, which may run in a branch of `any`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` asks a question, which a node in a branch of `any` cannot",
    label = "asks a question",
    note = "a question ends the run, and an `any` goes on with the first branch that succeeds: ask before it, or after it"
)]
pub trait AsksNothing {}
impl<R> AsksNothing for Stub<R> {}

/// Checks a node in a branch of `any`.
pub fn in_any<N: AsksNothing, R, I>(_: &Placed<N, R, I>) {}

/// Checks a node's result type. rustc reports a constant that failed once, and nothing that depends on it.
pub const fn result<T: Returns<F>, F: Form>() {}

/// Checks the `Ok` of a node's `Result`, as [`result`] does for the whole.
pub const fn ok<T: OkOfNode<F>, F: Form>() {}

/// A `Result` with an `Ok` that a node may return. It is in a tuple, whose parentheses are where the macro wants the error.
#[diagnostic::on_unimplemented(
    message = "a node cannot return this as the `Ok` of a `Result`",
    label = "not a node's result",
    note = "a node with `state: &mut S`, or without state, returns nothing: `Result<(), NodeError>`",
    note = "a node with `state: &S` returns nothing or an update: `Result<SUpdate, NodeError>`",
    note = "a node with `state: S` returns the new state: `Result<S, NodeError>`",
    note = "each of them may return a route (`#[derive(Route)]`, or `bool`), instead of nothing or beside what it returns, in a tuple"
)]
pub trait OkOfNode<F> {}
#[diagnostic::do_not_recommend]
impl<T: ResultWith<F>, F> OkOfNode<F> for T {}

/// See [`OkOfNode`].
pub trait ResultWith<F> {}
impl<T: Returns<F>, E, F: Form> ResultWith<F> for (Result<T, E>,) {}

/// Checks the state of a node, as [`result`] does for its result.
pub const fn state_type<S: State>() {}

/// The error of a node's `Result`.
#[diagnostic::on_unimplemented(
    message = "the error of a node cannot be `{Self}`: it does not convert into `NodeError`",
    label = "not an error of a node",
    note = "write `NodeError` here: `?` converts every error that is `Send + Sync`, `anyhow::Error` and text into it",
    note = "a type of your own converts if it implements `std::error::Error`, and a box if it is `Box<dyn Error + Send + Sync>`"
)]
pub trait IntoNodeError {}
#[diagnostic::do_not_recommend]
impl<E: Into<NodeError>> IntoNodeError for E {}

/// A `Result` with an error that converts into a node's, in a tuple as for [`OkOfNode`].
pub trait ErrorOfNode {}
impl<T, E: IntoNodeError> ErrorOfNode for (Result<T, E>,) {}

/// Checks the error of a node's `Result`, as [`result`] does for the whole.
pub const fn error<E: ErrorOfNode>() {}

/// A node's result whose type was checked by the constant `VALID`.
#[derive(Debug)]
pub struct Checked<T, const VALID: usize>(pub T);

/// The result of a node with `answer`, whose type was checked by the constant `VALID`.
#[derive(Debug)]
pub struct CheckedAsk<T, const VALID: usize>(pub T);

/// The same as [`Returns`], for checked results: an impl of that trait would overlap with the one for `Owns`.
pub trait Finishes<F: Form> {
    type Route;
    fn finish<I>(self, cx: NodeContext<'_, F::State, F::Context, I>) -> Result<Self::Route, NodeError>;
}

#[diagnostic::do_not_recommend]
impl<T: Returns<F>, F: Form, const VALID: usize> Finishes<F> for Checked<T, VALID> {
    type Route = T::Route;
    fn finish<I>(self, cx: NodeContext<'_, F::State, F::Context, I>) -> Result<T::Route, NodeError> {
        self.0.finish(cx)
    }
}

#[diagnostic::do_not_recommend]
impl<T: ReturnsAsk<F>, F: Form, const VALID: usize> Finishes<F> for CheckedAsk<T, VALID> {
    type Route = T::Route;
    fn finish<I>(self, cx: NodeContext<'_, F::State, F::Context, I>) -> Result<T::Route, NodeError> {
        self.0.finish(cx)
    }
}

/// The same as [`ReturnsUpdate`], for checked results.
#[diagnostic::on_unimplemented(
    message = "a node in a group cannot return `{Self}`",
    label = "returns what a group cannot merge",
    note = "a node in a group returns an update, `{S}::update()`, or nothing",
    note = "it may return a route (`#[derive(Route)]`, or `bool`), instead of nothing or beside the update, in a tuple"
)]
pub trait FinishesUpdate<S: State, C> {
    type Route;
    fn into_update(self) -> Result<(Option<S::Update>, Self::Route), NodeError>;
}

#[diagnostic::do_not_recommend]
impl<T: ReturnsUpdate<S, C>, S: State, C, const VALID: usize> FinishesUpdate<S, C> for Checked<T, VALID> {
    type Route = T::Route;
    fn into_update(self) -> Result<(Option<S::Update>, T::Route), NodeError> {
        self.0.into_update()
    }
}

#[diagnostic::do_not_recommend]
impl<T: ReturnsAskedUpdate<S, C>, S: State, C, const VALID: usize> FinishesUpdate<S, C> for CheckedAsk<T, VALID> {
    type Route = T::Route;
    fn into_update(self) -> Result<(Option<S::Update>, T::Route), NodeError> {
        self.0.into_update()
    }
}

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

/// Checks the arguments of a durable task.
pub const fn task_args<T: TaskArgs>() {}

/// Arguments of a durable task whose type was checked by the constant `VALID`.
#[derive(Debug)]
pub struct CheckedArgs<T, const VALID: usize>(PhantomData<T>);

/// See [`CheckedArgs`].
pub trait ValidArgs {
    /// The type itself. rustc does not know it where the constant failed, so that it reports nothing else about it.
    type Value: TaskArgs;
}
#[diagnostic::do_not_recommend]
impl<T: TaskArgs, const VALID: usize> ValidArgs for CheckedArgs<T, VALID> {
    type Value = T;
}

/// The same as [`Reported`], for the arguments of a durable task.
pub trait ReportedArgs {
    type Any: TaskArgs;
}
impl<const MISTAKE: usize> ReportedArgs for Mistaken<MISTAKE> {
    type Any = ();
}

/// A result of a durable task.
#[diagnostic::on_unimplemented(
    message = "a durable task cannot return `{Self}`",
    label = "not a durable task's result",
    note = "a durable task returns nothing, or `Result<(), E>`: what it finds out goes into a thread or a stored item"
)]
pub trait TaskResult {
    fn into_result(self) -> Result<(), TaskError>;
}

#[diagnostic::do_not_recommend]
impl TaskResult for () {
    fn into_result(self) -> Result<(), TaskError> {
        Ok(())
    }
}

#[diagnostic::do_not_recommend]
impl<E: Into<NodeError>> TaskResult for Result<(), E> {
    fn into_result(self) -> Result<(), TaskError> {
        self.map_err(|error| TaskError::Failed(error.into().into_source()))
    }
}

/// Checks a durable task's result type.
pub const fn task_result<T: TaskResult>() {}

/// A `Result` whose `Ok` is nothing. It is in a tuple, whose parentheses are where the macro wants the error.
#[diagnostic::on_unimplemented(
    message = "a durable task returns nothing as the `Ok` of a `Result`",
    label = "write `()`",
    note = "what a durable task finds out goes into a thread or a stored item"
)]
pub trait OkOfTask {}
#[diagnostic::do_not_recommend]
impl<E> OkOfTask for (Result<(), E>,) {}

/// Checks the `Ok` of a durable task's `Result`.
pub const fn task_ok<T: OkOfTask>() {}

/// The error of a durable task's `Result`.
#[diagnostic::on_unimplemented(
    message = "the error of a durable task cannot be `{Self}`: it does not convert into `NodeError`",
    label = "not an error of a durable task",
    note = "write `NodeError` here: `?` converts every error that is `Send + Sync`, `anyhow::Error` and text into it",
    note = "a type of your own converts if it implements `std::error::Error`, and a box if it is `Box<dyn Error + Send + Sync>`"
)]
pub trait IntoTaskError {}
#[diagnostic::do_not_recommend]
impl<E: Into<NodeError>> IntoTaskError for E {}

/// A `Result` with an error of a durable task, in a tuple as for [`OkOfTask`].
pub trait ErrorOfTask {}
impl<T, E: IntoTaskError> ErrorOfTask for (Result<T, E>,) {}

/// Checks the error of a durable task's `Result`.
pub const fn task_error<E: ErrorOfTask>() {}

/// The same as [`TaskResult`], for checked results.
pub trait FinishesTask {
    fn finish(self) -> Result<(), TaskError>;
}

#[diagnostic::do_not_recommend]
impl<T: TaskResult, const VALID: usize> FinishesTask for Checked<T, VALID> {
    fn finish(self) -> Result<(), TaskError> {
        self.0.into_result()
    }
}

/// The type of a durable task's parameter that the runtime fills with a value of type `Given`.
#[diagnostic::on_unimplemented(
    message = "this parameter of a durable task cannot be `{Self}`",
    label = "write `{Given}`"
)]
pub trait AcceptedByTask<Given> {
    fn accept(given: Given) -> Self;
}

#[diagnostic::do_not_recommend]
impl<T> AcceptedByTask<T> for T {
    fn accept(given: T) -> T {
        given
    }
}

/// Services that contain a `T`, for durable tasks that `#[inject]` one.
#[diagnostic::on_unimplemented(
    message = "a durable task injects `{T}`, which the services `{Self}` of the app do not provide",
    label = "this task injects `{T}`",
    note = "add `#[derive(Provide)]` to the struct of the services, with a field of type `{T}`, and hand it to the graph: `compile {{ services: services }}`"
)]
pub trait ProvideToTask<T: ?Sized> {
    fn provide(&self) -> &T;
}

#[diagnostic::do_not_recommend]
impl<C: Provide<T>, T: ?Sized> ProvideToTask<T> for C {
    fn provide(&self) -> &T {
        Provide::provide(self)
    }
}

/// Passes the `state` parameter as `&mut S`.
pub fn state_mut<S>(state: &mut S) -> &mut S {
    state
}

/// Passes the `state` parameter as `&S`.
pub fn state_ref<S>(state: &S) -> &S {
    state
}

/// Clones the state for a `state: S` parameter: if the node fails, the run still has the state as it was.
pub fn state_owned<S: Clone>(state: &S) -> S {
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

/// An arm: its pattern, the name of the step it leads to, or `None` for the end of the path, and the type of the value that
/// it carries.
pub type Arm = (&'static str, Option<&'static str>, Option<InputType>);

/// These are methods, so that rustc infers the graph's state before it checks the state of a node.
#[doc(hidden)]
impl<S, C: Context, P: Persistence> StateGraph<S, C, P> {
    /// Creates an empty graph for `type State = ..`. The state is inferred through its update type: if the type is not a
    /// state, rustc leaves the graph's state open and does not report the calls that follow.
    #[must_use]
    pub fn __of<T: State<Update: Update<State = S>>>() -> Self
    where
        S: State,
    {
        Self::new()
    }

    /// Creates an empty graph with the state, the services and the durable tasks of this one, for an inner graph.
    #[must_use]
    pub fn __inside(&self) -> Self
    where
        S: State,
    {
        let mut graph = Self::new();
        graph.tasks.clone_from(&self.tasks);
        graph
    }

    /// Creates an empty graph as [`__inside`](Self::__inside) does, for an inner graph in a branch.
    #[must_use]
    pub fn __inside_branch(&self) -> Self
    where
        S: State,
    {
        let mut graph = self.__inside();
        graph.is_in_branch = true;
        graph
    }

    /// Adds an inner graph that runs in a branch.
    pub fn __parallel_graph(&mut self, name: &'static str, graph: ParallelSubgraph<S, C>)
    where
        S: State,
    {
        self.add_erased_parallel(name.into(), graph);
    }

    /// Registers a durable task.
    #[track_caller]
    pub fn __task<T: RunTask<C>>(&mut self, _: PhantomData<T>) {
        self.add_task::<T>();
    }

    /// Puts a node in its place, by its type alone. `K` stands for the durable tasks of the graph.
    #[must_use]
    pub fn __place<N, R, I, T, U: AllRegistered<K>, K>(&self) -> (Placed<T, R, I>, Takes<I>)
    where
        N: Signature<S, R, I, This = T, Spawns = U>,
        S: State,
        I: Send + Sync + 'static,
    {
        placed(N::HANDLE)
    }

    /// Puts a value in its place as a node.
    #[must_use]
    pub fn __place_value<R: 'static, I: Send + Sync + 'static, N: NodeWith<S, C, R, I>>(
        &self,
        node: N,
    ) -> (PlacedValue<S, C, R>, Takes<I>)
    where
        S: State,
    {
        let make = |route, input| WorkDeclaration::node(RoutedNode::<_, BoxedRoute<S, R>, I>::new(node, route), input);
        (PlacedValue(Box::new(make)), Takes::new())
    }

    /// Puts a value in its place as a node of a branch.
    #[must_use]
    pub fn __place_parallel<R: 'static, I: Send + Sync + 'static, N: ParallelNodeWith<S, C, R, I>>(
        &self,
        node: N,
    ) -> (PlacedValue<S, C, R>, Takes<I>)
    where
        S: State,
    {
        let make =
            |route, input| WorkDeclaration::parallel(RoutedNode::<_, BoxedRoute<S, R>, I>::new(node, route), input);
        (PlacedValue(Box::new(make)), Takes::new())
    }

    /// Adds a value that was put in its place.
    pub fn __value<R: Unrouted + 'static, I>(&mut self, name: &'static str, node: PlacedValue<S, C, R>, takes: Takes<I>)
    where
        S: 'static,
    {
        self.add_work(name.into(), (node.0)(Box::new(|_, _, _| Ok(0)), takes.input));
    }

    /// Adds a value whose returned route selects the arm.
    pub fn __deciding_value<R: Routed<V> + 'static, V, I>(
        &mut self,
        name: &'static str,
        node: PlacedValue<S, C, R>,
        takes: Takes<I>,
        router: impl Fn(&S, V, &Slot) -> usize + Send + Sync + 'static,
        arms: &[Arm],
    ) where
        S: 'static,
    {
        let router = move |state: &S, route: R, slot: &Slot| Ok(router(state, route.value(), slot));
        self.add_work(name.into(), (node.0)(Box::new(router), takes.input));
        self.add_arms(name.into(), None, declared(arms), Vec::new());
    }

    pub fn __node<R: Unrouted, I, N: NodeWith<S, C, R, I>>(
        &mut self,
        name: &'static str,
        node: Placed<N, R, I>,
        takes: Takes<I>,
    ) where
        S: State,
        I: Send + Sync + 'static,
    {
        self.add_routed(name.into(), node.node, takes.input, |_, _, _| Ok(0));
    }

    pub fn __branch<R: Unrouted, I, N: ParallelNodeWith<S, C, R, I>>(
        &mut self,
        name: &'static str,
        node: Placed<N, R, I>,
        takes: Takes<I>,
    ) where
        S: State,
        I: Send + Sync + 'static,
    {
        self.add_routed_parallel(name.into(), node.node, takes.input, |_, _, _| Ok(0));
    }

    /// Adds a node whose returned route selects the arm.
    pub fn __deciding<R: Routed<V>, V, I, N: NodeWith<S, C, R, I>>(
        &mut self,
        name: &'static str,
        node: Placed<N, R, I>,
        takes: Takes<I>,
        router: impl Fn(&S, V, &Slot) -> usize + Send + Sync + 'static,
        arms: &[Arm],
    ) where
        S: State,
        I: Send + Sync + 'static,
    {
        let router = move |state: &S, route: R, slot: &Slot| Ok(router(state, route.value(), slot));
        self.add_routed(name.into(), node.node, takes.input, router);
        self.add_arms(name.into(), None, declared(arms), Vec::new());
    }

    /// Adds a node of a branch whose returned route selects the arm.
    pub fn __deciding_branch<R: Routed<V>, V, I, N: ParallelNodeWith<S, C, R, I>>(
        &mut self,
        name: &'static str,
        node: Placed<N, R, I>,
        takes: Takes<I>,
        router: impl Fn(&S, V, &Slot) -> usize + Send + Sync + 'static,
        arms: &[Arm],
    ) where
        S: State,
        I: Send + Sync + 'static,
    {
        let router = move |state: &S, route: R, slot: &Slot| Ok(router(state, route.value(), slot));
        self.add_routed_parallel(name.into(), node.node, takes.input, router);
        self.add_arms(name.into(), None, declared(arms), Vec::new());
    }

    /// Adds a decision that a router makes from the state.
    pub fn __route(
        &mut self,
        from: &'static str,
        router: impl Fn(&S, &Slot) -> usize + Send + Sync + 'static,
        arms: &[Arm],
    ) where
        S: 'static,
    {
        let router = move |state: &S, slot: &Slot| Ok(router(state, slot));
        self.add_arms(from.into(), Some(Box::new(router)), declared(arms), Vec::new());
    }

    pub fn __group(&mut self, name: &'static str, branches: &[&[&'static str]]) {
        self.add_group(name, branches.iter().map(|branch| branch.iter().copied()));
    }

    pub fn __any(&mut self, name: &'static str, branches: &[&[&'static str]]) {
        self.add_any(name, branches.iter().map(|branch| branch.iter().copied()));
    }

    pub fn __each<T: 'static>(
        &mut self,
        name: &'static str,
        takes: Takes<T>,
        items: impl Fn(&S, usize) -> Option<ItemList> + Send + Sync + 'static,
        options: EachOptions,
        branch: &[&'static str],
    ) where
        S: 'static,
    {
        let kind = GroupKind::Each(Each { items: Box::new(items), options });
        self.add_branches(name.into(), kind, Some(takes.input), [branch.iter().copied()]);
    }
}

fn placed<N, R, I: Send + Sync + 'static>(node: N) -> (Placed<N, R, I>, Takes<I>) {
    (Placed { node, types: PhantomData }, Takes::new())
}

fn declared(arms: &[Arm]) -> Vec<ArmDeclaration> {
    // The builder takes END for the end of a branch as well.
    let target = |to: Option<&str>| to.map_or_else(EdgeTarget::end, EdgeTarget::from);
    let arm =
        |(label, to, carries): &Arm| ArmDeclaration { label: (*label).into(), to: target(*to), carries: *carries };
    arms.iter().map(arm).collect()
}

/// Checks that two nodes that receive the same value take the same type.
pub fn same<I>(_: Takes<I>, _: Takes<I>) {}

/// Compiles a graph that is written inside another one, and puts it in its place.
///
/// # Panics
///
/// Panics for the same reason as [`compiled`].
#[must_use]
#[track_caller]
pub fn subgraph<S: State, C: Context, P>(graph: StateGraph<S, C, P>) -> (Placed<Subgraph<S, C>, (), ()>, Takes<()>) {
    match Subgraph::new(graph) {
        Ok(subgraph) => placed(subgraph),
        Err(error) => refused(&error),
    }
}

/// Compiles a graph that is written inside another one and runs in a branch of it.
///
/// # Panics
///
/// Panics for the same reason as [`compiled`].
#[must_use]
#[track_caller]
pub fn parallel_subgraph<S: State, C: Context, P>(graph: StateGraph<S, C, P>) -> (ParallelSubgraph<S, C>, Takes<()>) {
    match ParallelSubgraph::new(graph) {
        Ok(subgraph) => (subgraph, Takes::new()),
        Err(error) => refused(&error),
    }
}

/// Compiles a graph that `graph!` has checked.
///
/// # Panics
///
/// Panics if the builder refuses a graph that `graph!` accepted: a graph that is a value is nested too deep, has an option
/// that has no effect there, or asks a question in an `any`, or there is a bug in `graph!`.
#[must_use]
#[track_caller]
pub fn compiled<S: State, C: Context, P: Keeps<S>>(
    graph: StateGraph<S, C, P>,
    options: CompileOptions<C, P>,
) -> CompiledGraph<S, C> {
    match graph.compile(options) {
        Ok(app) => app,
        Err(error) => refused(&error),
    }
}

/// Panics with the problems of a graph that `graph!` accepted.
#[track_caller]
#[allow(clippy::panic, reason = "`graph!` has the builder's rules; a graph that breaks one is a bug of the macro")]
fn refused(error: &BuildError) -> ! {
    // The macro cannot see what is inside a value.
    let is_of_values = |problem: &BuildProblem| {
        use BuildProblemKind::{OuterOption, QuestionInAny, TooDeep, UnregisteredTask};
        matches!(problem.kind, TooDeep { .. } | OuterOption { .. } | QuestionInAny { .. } | UnregisteredTask { .. })
    };
    if error.problems().iter().all(is_of_values) { panic!("{error}") } else { panic!("bug in `graph!`: {error}") }
}

/// Stands for the value of a `graph!` with mistakes. It has the graph's type and never runs, because such a program
/// does not compile.
#[must_use]
pub fn poisoned<S: State, C: Context, P: Keeps<S>>(
    _: StateGraph<S, C, P>,
    _: CompileOptions<C, P>,
) -> CompiledGraph<S, C> {
    unreachable!("a graph with mistakes does not compile")
}

//! [`StateGraph`]: a graph built call by call, for graphs that are known only at run time.

use std::{fmt, marker::PhantomData, panic::Location, sync::Arc};

use super::{
    arms::{ArmDeclaration, Arms},
    commit::{Commit, OnCommit},
    endpoint::{EdgeSource, EdgeTarget, START},
    options::{EachOptions, NodeOptions},
    outline::Outline,
    plan::{Each, ErasedNode, ErasedParallelNode, GroupKind, RoutedNode, Router},
};
use crate::{
    carried::{InputType, Slot, TypedItems},
    error::NodeError,
    node::{Node, NodeInfo, ParallelNode},
    state::State,
    store::{InMemory, KeepsInput, Persistence},
    task::{RegisteredTask, RunTask},
};

/// A graph built call by call; [`graph!`](macro@crate::graph) is the form that is checked at compile time.
///
/// The calls only record the graph. [`compile`](Self::compile) checks it as a whole and reports every problem.
///
/// ```
/// use agentflow::{AgentState, CompileOptions, END, Message, RunConfig, StateGraph, node};
///
/// #[node]
/// async fn greet(state: &mut AgentState) {
///     state.context.push(Message::assistant("hello"));
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut graph = StateGraph::new();
/// graph.add_node("GREET", greet {});
/// graph.set_entry_point("GREET");
/// // Greets until there are two messages.
/// graph.add_route("GREET", |state: &AgentState| state.context.len() < 2, [
///     (true, "GREET".into()),
///     (false, END.into()),
/// ]);
/// let app = graph.compile(CompileOptions::new())?;
///
/// let state = app.invoke(AgentState::default(), RunConfig::new()).await?;
/// assert_eq!(state.context.len(), 2);
/// # Ok(())
/// # }
/// ```
pub struct StateGraph<S, C = (), P = InMemory> {
    /// The name that was set.
    pub(super) name: Option<Arc<str>>,
    pub(super) steps: Vec<StepDeclaration<S, C>>,
    pub(super) options: Vec<OptionsDeclaration>,
    pub(super) edges: Vec<EdgeDeclaration>,
    pub(super) routes: Vec<RouteDeclaration<S>>,
    pub(crate) tasks: Vec<TaskDeclaration<C>>,
    /// Set if the graph runs in a branch of another one, so that all nodes are parallel nodes.
    pub(crate) is_in_branch: bool,
    pub(super) on_commit: Option<OnCommit<S>>,
    pub(super) created: Caller,
    persistence: PhantomData<fn() -> P>,
}

/// The place of a call in the code of the user, for the problems of the graph.
pub(super) type Caller = &'static Location<'static>;

/// A call that added a node or a group.
pub(super) struct StepDeclaration<S, C> {
    pub(super) name: Arc<str>,
    pub(super) work: WorkDeclaration<S, C>,
    pub(super) location: Caller,
}

/// A node with the type of its input, or a group.
pub(crate) enum WorkDeclaration<S, C> {
    Node(Box<dyn ErasedNode<S, C>>, InputType),
    Branch(Box<dyn ErasedParallelNode<S, C>>, InputType),
    Group(GroupDeclaration<S>),
}

impl<S: State, C: Send + Sync + 'static> WorkDeclaration<S, C> {
    pub(crate) fn node<N, F, I>(node: RoutedNode<N, F, I>, input: InputType) -> Self
    where
        I: Send + Sync + 'static,
        N: Node<S, C, I>,
        F: Fn(&S, N::Output, &Slot) -> Result<usize, NodeError> + Send + Sync + 'static,
    {
        Self::Node(Box::new(node), input)
    }

    pub(crate) fn parallel<N, F, I>(node: RoutedNode<N, F, I>, input: InputType) -> Self
    where
        I: Send + Sync + 'static,
        N: ParallelNode<S, C, I>,
        F: Fn(&S, N::Output, &Slot) -> Result<usize, NodeError> + Send + Sync + 'static,
    {
        Self::Branch(Box::new(node), input)
    }
}

/// A group, with its branches by name.
pub(crate) struct GroupDeclaration<S> {
    pub(super) kind: GroupKind<S>,
    /// The type of the items, for `each`.
    pub(super) items: Option<InputType>,
    pub(super) branches: Vec<Vec<Arc<str>>>,
}

impl<S: State, C> WorkDeclaration<S, C> {
    /// Returns whether the node, or a node inside it, asks questions.
    pub(super) fn asks(&self) -> bool {
        let asks = self.info().is_some_and(|info| info.asks.is_some());
        asks || self.outline().is_some_and(|outline| outline.asks)
    }

    /// Returns the names of the durable tasks that a node spawns.
    pub(super) fn durable_tasks(&self) -> &'static [&'static str] {
        self.info().map_or(&[], |info| info.durable_tasks)
    }

    /// Returns the properties of a node.
    fn info(&self) -> Option<NodeInfo> {
        match self {
            Self::Node(node, _) => Some(node.info()),
            Self::Branch(node, _) => Some(node.info()),
            Self::Group(_) => None,
        }
    }

    /// Returns the outline of a node that is a graph.
    pub(super) fn outline(&self) -> Option<&Outline> {
        match self {
            Self::Node(node, _) => node.outline(),
            Self::Branch(node, _) => node.outline(),
            Self::Group(_) => None,
        }
    }
}

/// A call that set the options of a node.
pub(super) struct OptionsDeclaration {
    pub(super) node: Arc<str>,
    pub(super) options: NodeOptions,
    pub(super) location: Caller,
}

/// A call that added an edge.
pub(super) struct EdgeDeclaration {
    pub(super) from: EdgeSource,
    pub(super) to: EdgeTarget,
    pub(super) location: Caller,
}

/// A call that registered a durable task.
pub(crate) struct TaskDeclaration<C> {
    pub(super) task: RegisteredTask<C>,
    pub(super) location: Caller,
}

impl<C> Clone for TaskDeclaration<C> {
    fn clone(&self) -> Self {
        Self { task: self.task, location: self.location }
    }
}

/// A call that added a decision.
pub(super) struct RouteDeclaration<S> {
    pub(super) from: Arc<str>,
    /// Chooses the arm from the state; `None` where the node itself returns the route.
    pub(super) router: Option<Box<dyn Router<S>>>,
    pub(super) arms: Vec<ArmDeclaration>,
    /// The routes of more than one arm.
    pub(super) duplicates: Vec<Arc<str>>,
    pub(super) location: Caller,
}

// The bound on the state is on the methods that need it: on the impl, rustc would report a missing one at every call.
impl<S, C: Send + Sync + 'static, P: Persistence> StateGraph<S, C, P> {
    /// Creates a graph without nodes.
    #[must_use]
    #[track_caller]
    #[allow(clippy::new_without_default, reason = "a graph without nodes does not compile, so it is no useful default")]
    pub fn new() -> Self
    where
        S: State,
    {
        Self {
            name: None,
            steps: Vec::new(),
            options: Vec::new(),
            edges: Vec::new(),
            routes: Vec::new(),
            tasks: Vec::new(),
            is_in_branch: false,
            on_commit: None,
            created: Location::caller(),
            persistence: PhantomData,
        }
    }

    /// Sets the name of the graph in spans, pictures and its [store](crate::CompileOptions::store); the default is `graph`. A graph
    /// with a store needs a name of its own.
    pub fn set_name(&mut self, name: impl Into<Arc<str>>) -> &mut Self {
        self.name = Some(name.into());
        self
    }

    /// Adds a node: the handle that `#[node]` made (`my_node {}`, or `MAIN` for `#[node(MAIN)]`), a compiled graph, or any
    /// other value that implements [`Node`].
    #[track_caller]
    pub fn add_node<I: Send + Sync + 'static>(
        &mut self,
        name: impl Into<Arc<str>>,
        node: impl Node<S, C, I, Output = ()>,
    ) -> &mut Self
    where
        S: State,
        P: KeepsInput<I>,
    {
        self.add_routed(name.into(), node, P::input(), |_, (), _| Ok(0))
    }

    /// Adds a node that returns a route, with the target of each route: a list of pairs, or [`Arms`] whose routes carry
    /// values.
    ///
    /// A route without an arm ends the run with [`NoRoute`](crate::error::NoRoute); `graph!` checks at compile time that
    /// there is none.
    #[track_caller]
    pub fn add_routing_node<N, I>(
        &mut self,
        name: impl Into<Arc<str>>,
        node: N,
        arms: impl Into<Arms<N::Output>>,
    ) -> &mut Self
    where
        S: State,
        I: Send + Sync + 'static,
        N: Node<S, C, I>,
        N::Output: 'static,
        P: KeepsInput<I>,
    {
        let (name, arms) = (name.into(), arms.into());
        let (choose, declared, duplicates) = arms.into_parts();
        self.add_routed(Arc::clone(&name), node, P::input(), move |_, route, slot| choose.choose(route, slot));
        self.add_arms(name, None, declared, duplicates)
    }

    #[track_caller]
    pub(crate) fn add_routed<N: Node<S, C, I>, I: Send + Sync + 'static>(
        &mut self,
        name: Arc<str>,
        node: N,
        input: InputType,
        route: impl Fn(&S, N::Output, &Slot) -> Result<usize, NodeError> + Send + Sync + 'static,
    ) -> &mut Self
    where
        S: State,
    {
        self.add_work(name, WorkDeclaration::node(RoutedNode::<N, _, I>::new(node, route), input))
    }

    /// Adds a node that runs in a group: it reads the state and may return an update.
    #[track_caller]
    pub fn add_parallel_node<I: Send + Sync + 'static>(
        &mut self,
        name: impl Into<Arc<str>>,
        node: impl ParallelNode<S, C, I, Output = ()>,
    ) -> &mut Self
    where
        S: State,
        P: KeepsInput<I>,
    {
        self.add_routed_parallel(name.into(), node, P::input(), |_, (), _| Ok(0))
    }

    /// Adds a node that runs in a group and returns a route, as [`add_routing_node`](Self::add_routing_node) does.
    #[track_caller]
    pub fn add_parallel_routing_node<N, I>(
        &mut self,
        name: impl Into<Arc<str>>,
        node: N,
        arms: impl Into<Arms<N::Output>>,
    ) -> &mut Self
    where
        S: State,
        I: Send + Sync + 'static,
        N: ParallelNode<S, C, I>,
        N::Output: 'static,
        P: KeepsInput<I>,
    {
        let (name, arms) = (name.into(), arms.into());
        let (choose, declared, duplicates) = arms.into_parts();
        self.add_routed_parallel(Arc::clone(&name), node, P::input(), move |_, route, slot| choose.choose(route, slot));
        self.add_arms(name, None, declared, duplicates)
    }

    #[track_caller]
    pub(crate) fn add_routed_parallel<N: ParallelNode<S, C, I>, I: Send + Sync + 'static>(
        &mut self,
        name: Arc<str>,
        node: N,
        input: InputType,
        route: impl Fn(&S, N::Output, &Slot) -> Result<usize, NodeError> + Send + Sync + 'static,
    ) -> &mut Self
    where
        S: State,
    {
        self.add_work(name, WorkDeclaration::parallel(RoutedNode::<N, _, I>::new(node, route), input))
    }

    /// Adds a node that runs in a group and that no user names, such as an inner graph.
    #[track_caller]
    pub(crate) fn add_erased_parallel(
        &mut self,
        name: Arc<str>,
        node: impl ErasedParallelNode<S, C> + 'static,
    ) -> &mut Self
    where
        S: State,
    {
        self.add_work(name, WorkDeclaration::Branch(Box::new(node), InputType::of::<()>()))
    }

    /// Adds a group of parallel branches. Each branch is a list of parallel nodes and groups, by name.
    ///
    /// Edges lead to and from the group by its own name. The step after it runs once, when all branches are done. If two
    /// branches replace the same field, the run fails with [`RunErrorKind::Conflict`](crate::run::RunErrorKind::Conflict)
    /// and nothing of the group is merged.
    ///
    /// A branch begins at the first name of its list. Each node leads to the one after it, and the last one to [`JOIN`](crate::JOIN),
    /// unless [`add_edge`](Self::add_edge), [`add_route`](Self::add_route) or its arms say otherwise: a branch may decide
    /// and loop among its own nodes. A node that is named only as the `on_error` of a node of the branch belongs to the
    /// branch too.
    ///
    /// The branches are polled in the task of the run. Which of two branches that are woken at the same moment goes on first
    /// is not defined, and neither is which failure is reported if both fail at that moment. The merge does not depend on
    /// it: it is in written order.
    #[track_caller]
    pub fn add_group<B, M>(&mut self, name: impl Into<Arc<str>>, branches: impl IntoIterator<Item = B>) -> &mut Self
    where
        B: IntoIterator<Item = M>,
        M: Into<Arc<str>>,
    {
        self.add_branches(name.into(), GroupKind::All, None, branches)
    }

    /// Adds a group whose first branch to succeed wins: its updates are merged, and the other branches are dropped at
    /// once. If all branches fail, the group fails with [`AllFailed`](crate::run::AllFailed), which has all errors.
    ///
    /// Branches are as in [`add_group`](Self::add_group).
    #[track_caller]
    pub fn add_any<B, M>(&mut self, name: impl Into<Arc<str>>, branches: impl IntoIterator<Item = B>) -> &mut Self
    where
        B: IntoIterator<Item = M>,
        M: Into<Arc<str>>,
    {
        self.add_branches(name.into(), GroupKind::Any, None, branches)
    }

    /// Adds a group whose branch runs once for each item that `items` returns. The first node of the branch has the item
    /// as its `input`. The updates are merged in the order of the items; without items the run goes on at once.
    ///
    /// The branch is as in [`add_group`](Self::add_group). If the branch fails for one item, the others are dropped, unless
    /// it recovers by `on_error`.
    ///
    /// ```
    /// use agentflow::{AgentState, CompileOptions, END, EachOptions, Message, RunConfig, StateGraph, node};
    ///
    /// #[node]
    /// async fn shout(state: &AgentState, input: &String) -> agentflow::message::AgentStateUpdate {
    ///     AgentState::update().context([Message::assistant(input.to_uppercase())])
    /// }
    ///
    /// fn words(state: &AgentState) -> Vec<String> {
    ///     state.context[0].text().split(' ').map(str::to_owned).collect()
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut graph = StateGraph::new();
    /// graph.add_parallel_node("SHOUT", shout {});
    /// graph.add_each("WORDS", words, EachOptions::new().max_parallel(2), ["SHOUT"]);
    /// graph.set_entry_point("WORDS");
    /// graph.add_edge("WORDS", END);
    /// let app = graph.compile(CompileOptions::new())?;
    ///
    /// let state = app.invoke(AgentState::from_user("to whom"), RunConfig::new()).await?;
    /// assert_eq!(state.context[1].text(), "TO");
    /// assert_eq!(state.context[2].text(), "WHOM");
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn add_each<T, M>(
        &mut self,
        name: impl Into<Arc<str>>,
        items: impl for<'a> ItemsOf<'a, S, T> + Send + Sync + 'static,
        options: EachOptions,
        branch: impl IntoIterator<Item = M>,
    ) -> &mut Self
    where
        S: 'static,
        T: Send + Sync + 'static,
        M: Into<Arc<str>>,
        P: KeepsInput<T>,
    {
        let items =
            move |state: &S, limit: usize| TypedItems::collect(items(state).into_iter(), limit).map(TypedItems::erase);
        let kind = GroupKind::Each(Each { items: Box::new(items), options });
        self.add_branches(name.into(), kind, Some(P::input()), [branch])
    }

    #[track_caller]
    pub(crate) fn add_branches<B, M>(
        &mut self,
        name: Arc<str>,
        kind: GroupKind<S>,
        items: Option<InputType>,
        branches: impl IntoIterator<Item = B>,
    ) -> &mut Self
    where
        B: IntoIterator<Item = M>,
        M: Into<Arc<str>>,
    {
        let branches = branches.into_iter().map(|branch| branch.into_iter().map(Into::into).collect()).collect();
        self.add_work(name, WorkDeclaration::Group(GroupDeclaration { kind, items, branches }))
    }

    #[track_caller]
    pub(crate) fn add_work(&mut self, name: Arc<str>, work: WorkDeclaration<S, C>) -> &mut Self {
        self.steps.push(StepDeclaration { name, work, location: Location::caller() });
        self
    }

    /// Sets the options of a node: retries, a timeout, a fallback. A second call for the same node replaces the first. A
    /// group has `on_error` and `label` only.
    #[track_caller]
    pub fn set_node_options(&mut self, node: impl Into<Arc<str>>, options: NodeOptions) -> &mut Self {
        self.options.push(OptionsDeclaration { node: node.into(), options, location: Location::caller() });
        self
    }

    /// Adds an edge: `to` runs after `from`.
    #[track_caller]
    pub fn add_edge(&mut self, from: impl Into<EdgeSource>, to: impl Into<EdgeTarget>) -> &mut Self {
        self.edges.push(EdgeDeclaration { from: from.into(), to: to.into(), location: Location::caller() });
        self
    }

    /// Adds a decision after `from`: `router` computes a route from the state, and the run continues at the target of the
    /// arm with that route. The arms are a list of pairs, or [`Arms`] whose routes carry values.
    ///
    /// A route without an arm ends the run with [`NoRoute`](crate::error::NoRoute); `graph!` checks at compile time that
    /// there is none.
    #[track_caller]
    pub fn add_route<T: 'static>(
        &mut self,
        from: impl Into<Arc<str>>,
        router: impl Fn(&S) -> T + Send + Sync + 'static,
        arms: impl Into<Arms<T>>,
    ) -> &mut Self {
        let (choose, declared, duplicates) = arms.into().into_parts();
        let router = move |state: &S, slot: &Slot| choose.choose(router(state), slot);
        self.add_arms(from.into(), Some(Box::new(router)), declared, duplicates)
    }

    #[track_caller]
    pub(crate) fn add_arms(
        &mut self,
        from: Arc<str>,
        router: Option<Box<dyn Router<S>>>,
        arms: Vec<ArmDeclaration>,
        duplicates: Vec<Arc<str>>,
    ) -> &mut Self {
        self.routes.push(RouteDeclaration { from, router, arms, duplicates, location: Location::caller() });
        self
    }

    /// Sets a function that is called after each committed node, for example to save the state; in `graph!` it is the key
    /// `on_commit` of `compile { .. }`. A second call replaces the first.
    ///
    /// It is called on the main path: after a node has succeeded and its decision is taken, and after the branches of a
    /// group were joined, but for no node inside a group. [`Commit`] has the node, the next node and the state, which a
    /// later run may [continue from](crate::CompiledGraph::invoke_from). A node that failed is not reported; its fallback
    /// is.
    ///
    /// The run waits for the function, and a function that blocks, blocks the thread: hand the work over, to a channel or
    /// to a background task. If the function panics, the run goes on, and its first panic in a run is logged.
    ///
    /// In a nested graph, this function is called once, when the nested graph has reached its `END`. A nested
    /// [`CompiledGraph`](crate::CompiledGraph) with a function of its own calls that for its own nodes, with its own names
    /// and state. The outer run may still undo those commits: by a retry of the nested graph, by its fallback, or because
    /// the group that it is in fails.
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use agentflow::{AgentState, RunConfig, graph, node};
    ///
    /// #[node]
    /// async fn plan(_state: &mut AgentState) {}
    ///
    /// #[node]
    /// async fn write(_state: &mut AgentState) {}
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (commits, saved) = mpsc::channel();
    /// let app = graph! {
    ///     type State = AgentState;
    ///     plan -> write -> END;
    ///     compile { on_commit: move |commit| {
    ///         _ = commits.send((commit.node.to_owned(), commit.next.map(str::to_owned)));
    ///     } }
    /// };
    /// app.invoke(AgentState::default(), RunConfig::new()).await?;
    /// assert_eq!(saved.recv()?, ("plan".into(), Some("write".into())));
    /// assert_eq!(saved.recv()?, ("write".into(), None));
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_commit(&mut self, hook: impl Fn(Commit<'_, S>) + Send + Sync + 'static) -> &mut Self {
        self.on_commit = Some(Box::new(hook));
        self
    }

    /// Registers a durable task, so that nodes can spawn it and the app can run it; in `graph!` this is `tasks { .. }`.
    ///
    /// Two tasks of one name are a problem of the graph, and so is a node that spawns a task which is not registered, as far
    /// as [`NodeInfo::durable_tasks`](crate::graph::NodeInfo::durable_tasks) tells.
    ///
    /// ```
    /// use agentflow::{AgentState, BackgroundTaskManager, CompileOptions, END, NodeError, StateGraph, node, task};
    ///
    /// #[task]
    /// async fn deliver(args: String) {
    ///     println!("to {args}");
    /// }
    ///
    /// #[node]
    /// async fn send(state: &mut AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
    ///     task_manager.create_durable_task::<deliver>("ada@example.com".to_owned()).retry(5).spawn()?;
    ///     Ok(())
    /// }
    ///
    /// let mut graph = StateGraph::<AgentState>::new();
    /// graph.add_node("SEND", send {});
    /// graph.set_entry_point("SEND");
    /// graph.add_edge("SEND", END);
    /// let error = graph.compile(CompileOptions::new()).unwrap_err();
    /// assert!(error.to_string().contains("node `SEND` spawns the durable task `deliver`, which the graph does not register"));
    ///
    /// let mut graph = StateGraph::<AgentState>::new();
    /// graph.add_task::<deliver>();
    /// graph.add_node("SEND", send {});
    /// graph.set_entry_point("SEND");
    /// graph.add_edge("SEND", END);
    /// assert!(graph.compile(CompileOptions::new()).is_ok());
    /// ```
    #[track_caller]
    pub fn add_task<T: RunTask<C>>(&mut self) -> &mut Self {
        self.tasks.push(TaskDeclaration { task: RegisteredTask::of::<T>(), location: Location::caller() });
        self
    }

    /// Makes `node` the step at which every run begins.
    #[track_caller]
    pub fn set_entry_point(&mut self, node: impl Into<String>) -> &mut Self {
        self.add_edge(START, node.into())
    }
}

/// A function of the state that returns items, for [`StateGraph::add_each`]. Every `Fn(&S) -> I` implements it whose `I`
/// is an iterator or a collection; the items may not borrow from the state, but the iterator may.
pub trait ItemsOf<'a, S: 'a, T>: Fn(&'a S) -> Self::Iter {
    /// The iterator or collection.
    type Iter: IntoIterator<Item = T>;
}

impl<'a, S: 'a, T, F: Fn(&'a S) -> I, I: IntoIterator<Item = T>> ItemsOf<'a, S, T> for F {
    type Iter = I;
}

impl<S, C, P> StateGraph<S, C, P> {
    /// Returns the name that was set, or the default.
    pub(super) fn name(&self) -> Arc<str> {
        self.name.clone().unwrap_or_else(|| "graph".into())
    }
}

impl<S, C, P> fmt::Debug for StateGraph<S, C, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<_> = self.steps.iter().map(|step| &step.name).collect();
        f.debug_struct("StateGraph").field("name", &self.name()).field("nodes", &nodes).finish_non_exhaustive()
    }
}

//! [`StateGraph`]: a graph built call by call, for graphs that are known only at run time.

use std::{fmt, panic::Location, sync::Arc};

use super::{
    commit::{Commit, OnCommit},
    options::NodeOptions,
    outline::Outline,
    plan::{ErasedNode, ErasedParallelNode, RoutedNode, Router},
};
use crate::{
    error::{NoRoute, NodeError},
    node::{Node, ParallelNode},
    state::State,
};

/// The place where every run begins: `add_edge(START, "MAIN")` is the same as `set_entry_point("MAIN")`.
///
/// In `graph!` it is a keyword and needs no import.
#[derive(Clone, Copy, Debug)]
pub struct START;

/// The place where a run ends: `add_edge("MAIN", END)`.
///
/// In `graph!` it is a keyword and needs no import.
#[derive(Clone, Copy, Debug)]
pub struct END;

/// The source of an edge: the name of a node or group, or [`START`].
#[derive(Clone, Debug)]
pub struct EdgeSource(pub(super) Endpoint);

/// The target of an edge: the name of a node or group, or [`END`].
#[derive(Clone, Debug)]
pub struct EdgeTarget(pub(super) Endpoint);

/// One end of an edge.
#[derive(Clone, Debug)]
pub(super) enum Endpoint {
    Step(Arc<str>),
    /// [`START`] for a source, [`END`] for a target.
    Boundary,
}

impl EdgeSource {
    pub(super) fn is_start(&self) -> bool {
        matches!(self.0, Endpoint::Boundary)
    }
}

macro_rules! endpoint {
    ($End:ident, $Boundary:ident) => {
        impl From<&str> for $End {
            fn from(name: &str) -> Self {
                Self(Endpoint::Step(name.into()))
            }
        }
        impl From<String> for $End {
            fn from(name: String) -> Self {
                Self(Endpoint::Step(name.into()))
            }
        }
        impl From<$Boundary> for $End {
            fn from(_: $Boundary) -> Self {
                Self(Endpoint::Boundary)
            }
        }
    };
}
endpoint!(EdgeSource, START);
endpoint!(EdgeTarget, END);

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
pub struct StateGraph<S, C = ()> {
    pub(super) name: Arc<str>,
    pub(super) steps: Vec<StepDeclaration<S, C>>,
    pub(super) options: Vec<OptionsDeclaration>,
    pub(super) edges: Vec<EdgeDeclaration>,
    pub(super) routes: Vec<RouteDeclaration<S>>,
    pub(super) on_commit: Option<OnCommit<S>>,
    pub(super) created: Caller,
}

pub(super) type Caller = &'static Location<'static>;

pub(super) struct StepDeclaration<S, C> {
    pub(super) name: Arc<str>,
    pub(super) work: WorkDeclaration<S, C>,
    pub(super) location: Caller,
}

pub(super) enum WorkDeclaration<S, C> {
    Node(Box<dyn ErasedNode<S, C>>),
    Branch(Box<dyn ErasedParallelNode<S, C>>),
    Group(Vec<Vec<Arc<str>>>),
}

impl<S: State, C> WorkDeclaration<S, C> {
    /// Returns the outline of a node that is a graph.
    pub(super) fn outline(&self) -> Option<&Outline> {
        match self {
            Self::Node(node) => node.outline(),
            Self::Branch(node) => node.outline(),
            Self::Group(_) => None,
        }
    }
}

pub(super) struct OptionsDeclaration {
    pub(super) node: Arc<str>,
    pub(super) options: NodeOptions,
    pub(super) location: Caller,
}

pub(super) struct EdgeDeclaration {
    pub(super) from: EdgeSource,
    pub(super) to: EdgeTarget,
    pub(super) location: Caller,
}

pub(super) struct RouteDeclaration<S> {
    pub(super) from: Arc<str>,
    /// Chooses the arm from the state; `None` where the node itself returns the route.
    pub(super) router: Option<Box<dyn Router<S>>>,
    pub(super) arms: Vec<(Arc<str>, EdgeTarget)>,
    /// The routes of more than one arm.
    pub(super) duplicates: Vec<Arc<str>>,
    pub(super) location: Caller,
}

// The bound on the state is on the methods that need it: on the impl, rustc would report a missing one at every call.
impl<S, C: Send + Sync + 'static> StateGraph<S, C> {
    /// Creates a graph without nodes.
    #[must_use]
    #[track_caller]
    #[allow(clippy::new_without_default, reason = "a graph without nodes does not compile, so it is no useful default")]
    pub fn new() -> Self
    where
        S: State,
    {
        Self {
            name: "graph".into(),
            steps: Vec::new(),
            options: Vec::new(),
            edges: Vec::new(),
            routes: Vec::new(),
            on_commit: None,
            created: Location::caller(),
        }
    }

    /// Sets the name of the graph in spans and pictures; the default is `graph`.
    pub fn set_name(&mut self, name: impl Into<Arc<str>>) -> &mut Self {
        self.name = name.into();
        self
    }

    /// Adds a node: the handle that `#[node]` made (`my_node {}`, or `MAIN` for `#[node(MAIN)]`), a compiled graph, or any
    /// other value that implements [`Node`].
    #[track_caller]
    pub fn add_node(&mut self, name: impl Into<Arc<str>>, node: impl Node<S, C, Output = ()>) -> &mut Self
    where
        S: State,
    {
        self.add_routed(name.into(), node, |_, ()| Ok(0))
    }

    /// Adds a node that returns a route, with the target of each route.
    ///
    /// A route without an arm ends the run with [`NoRoute`](crate::error::NoRoute); `graph!` checks at compile time that
    /// there is none.
    #[track_caller]
    pub fn add_routing_node<N>(
        &mut self,
        name: impl Into<Arc<str>>,
        node: N,
        arms: impl IntoIterator<Item = (N::Output, EdgeTarget)>,
    ) -> &mut Self
    where
        S: State,
        N: Node<S, C>,
        N::Output: PartialEq + fmt::Debug + Send + Sync + 'static,
    {
        let name = name.into();
        let (routes, arms) = split_arms(arms);
        let duplicates = duplicates(&routes);
        self.add_routed(Arc::clone(&name), node, move |_, route| arm_of(&routes, &route));
        self.add_arms(name, None, arms, duplicates)
    }

    #[track_caller]
    pub(crate) fn add_routed<N: Node<S, C>>(
        &mut self,
        name: Arc<str>,
        node: N,
        route: impl Fn(&S, N::Output) -> Result<usize, NodeError> + Send + Sync + 'static,
    ) -> &mut Self
    where
        S: State,
    {
        self.add_step(name, WorkDeclaration::Node(Box::new(RoutedNode { node, route })))
    }

    /// Adds a node that runs in a group: it reads the state and may return an update.
    #[track_caller]
    pub fn add_parallel_node(&mut self, name: impl Into<Arc<str>>, node: impl ParallelNode<S, C>) -> &mut Self
    where
        S: State,
    {
        self.add_step(name.into(), WorkDeclaration::Branch(Box::new(node)))
    }

    /// Adds a group of parallel branches. Each branch is a sequence of parallel nodes and groups, by name.
    ///
    /// Edges lead to and from the group by its own name. The step after it runs once, when all branches are done. If two
    /// branches replace the same field, the run fails with [`RunErrorKind::Conflict`](crate::run::RunErrorKind::Conflict)
    /// and nothing of the group is merged.
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
        let branches = branches.into_iter().map(|branch| branch.into_iter().map(Into::into).collect());
        self.add_step(name.into(), WorkDeclaration::Group(branches.collect()))
    }

    #[track_caller]
    fn add_step(&mut self, name: Arc<str>, work: WorkDeclaration<S, C>) -> &mut Self {
        self.steps.push(StepDeclaration { name, work, location: Location::caller() });
        self
    }

    /// Sets the options of a node: retries, a timeout, a fallback. A second call for the same node replaces the first.
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
    /// arm with that route.
    ///
    /// A route without an arm ends the run with [`NoRoute`](crate::error::NoRoute); `graph!` checks at compile time that
    /// there is none.
    #[track_caller]
    pub fn add_route<T>(
        &mut self,
        from: impl Into<Arc<str>>,
        router: impl Fn(&S) -> T + Send + Sync + 'static,
        arms: impl IntoIterator<Item = (T, EdgeTarget)>,
    ) -> &mut Self
    where
        T: PartialEq + fmt::Debug + Send + Sync + 'static,
    {
        let (known, arms) = split_arms(arms);
        let duplicates = duplicates(&known);
        let router = move |state: &S| arm_of(&known, &router(state));
        self.add_arms(from.into(), Some(Box::new(router)), arms, duplicates)
    }

    #[track_caller]
    pub(crate) fn add_arms(
        &mut self,
        from: Arc<str>,
        router: Option<Box<dyn Router<S>>>,
        arms: Vec<(Arc<str>, EdgeTarget)>,
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

    /// Makes `node` the step at which every run begins.
    #[track_caller]
    pub fn set_entry_point(&mut self, node: impl Into<String>) -> &mut Self {
        self.add_edge(START, node.into())
    }
}

fn split_arms<T: fmt::Debug>(arms: impl IntoIterator<Item = (T, EdgeTarget)>) -> (Vec<T>, Vec<(Arc<str>, EdgeTarget)>) {
    arms.into_iter()
        .map(|(route, target)| {
            let label = format!("{route:?}").into();
            (route, (label, target))
        })
        .unzip()
}

fn duplicates<T: PartialEq + fmt::Debug>(routes: &[T]) -> Vec<Arc<str>> {
    let again = routes.iter().enumerate().filter(|(index, route)| routes[..*index].contains(route));
    again.map(|(_, route)| format!("{route:?}").into()).collect()
}

fn arm_of<T: PartialEq + fmt::Debug>(routes: &[T], route: &T) -> Result<usize, NodeError> {
    let arm = routes.iter().position(|known| known == route);
    arm.ok_or_else(|| NoRoute { route: format!("{route:?}").into() }.into())
}

impl<S, C> fmt::Debug for StateGraph<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<_> = self.steps.iter().map(|step| &step.name).collect();
        f.debug_struct("StateGraph").field("name", &self.name).field("nodes", &nodes).finish_non_exhaustive()
    }
}

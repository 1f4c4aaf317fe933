//! [`StateGraph`]: a graph described call by call, for graphs that are known only at run time.

use std::{fmt, panic::Location, sync::Arc};

use super::{
    BuildError, CompileOptions, CompiledGraph, NodeOptions, Subgraph,
    plan::{Choose, Decided, ErasedNode, ErasedParallelNode},
    validate,
};
use crate::{
    NodeError, State,
    error::NoRoute,
    graph::{Node, ParallelNode},
};

/// Where every run begins: `add_edge(START, "MAIN")` says the same as `set_entry_point("MAIN")`.
///
/// In `graph!` it is a keyword and needs no import.
#[derive(Clone, Copy, Debug)]
pub struct START;

/// Where a run ends: `add_edge("MAIN", END)`.
///
/// In `graph!` it is a keyword and needs no import.
#[derive(Clone, Copy, Debug)]
pub struct END;

/// Where an edge begins: the name of a node or group, or [`START`].
#[derive(Clone, Debug)]
pub struct EdgeSource(pub(super) Option<Arc<str>>);

/// Where an edge leads: the name of a node or group, or [`END`].
#[derive(Clone, Debug)]
pub struct EdgeTarget(pub(super) Option<Arc<str>>);

macro_rules! place {
    ($place:ident, $reserved:ident) => {
        impl From<&str> for $place {
            fn from(name: &str) -> Self {
                Self(Some(name.into()))
            }
        }
        impl From<String> for $place {
            fn from(name: String) -> Self {
                Self(Some(name.into()))
            }
        }
        impl From<$reserved> for $place {
            fn from(_: $reserved) -> Self {
                Self(None)
            }
        }
    };
}
place!(EdgeSource, START);
place!(EdgeTarget, END);

/// A graph described call by call; [`graph!`](crate::graph) is the form that is checked when it is compiled.
///
/// Calls only write down what they are told. [`compile`](Self::compile) checks the whole and lists all that is wrong.
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
/// // Greets until two have spoken.
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
    /// `None` where the node itself says which arm to take.
    pub(super) choose: Option<Box<dyn Choose<S>>>,
    pub(super) arms: Vec<(Arc<str>, EdgeTarget)>,
    /// Routes that more than one arm has.
    pub(super) duplicates: Vec<Arc<str>>,
    pub(super) location: Caller,
}

// The bound on the state stands at the calls that need it: on the whole, rustc would complain about every call.
impl<S, C: Send + Sync + 'static> StateGraph<S, C> {
    /// A graph without nodes.
    #[must_use]
    #[track_caller]
    #[allow(clippy::new_without_default, reason = "a graph without nodes is no graph: there is no default one")]
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
            created: Location::caller(),
        }
    }

    /// What the graph is called in spans and pictures; `graph` if nothing is said.
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
        self.add_deciding(name.into(), node, |_, ()| Ok(0))
    }

    /// Adds a node that returns a route, and where each route leads.
    ///
    /// A route that no arm has ends the run with an error that names it; `graph!` leaves none out.
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
        self.add_deciding(Arc::clone(&name), node, move |_, route| arm_of(&routes, &route));
        self.add_arms(name, None, arms, duplicates)
    }

    #[track_caller]
    pub(crate) fn add_deciding<N: Node<S, C>>(
        &mut self,
        name: Arc<str>,
        node: N,
        choose: impl Fn(&S, N::Output) -> Result<usize, NodeError> + Send + Sync + 'static,
    ) -> &mut Self
    where
        S: State,
    {
        self.add_step(name, WorkDeclaration::Node(Box::new(Decided { node, choose })))
    }

    /// Adds a node that will run in a group: one that reads the state, and returns an update if anything.
    #[track_caller]
    pub fn add_parallel_node(&mut self, name: impl Into<Arc<str>>, node: impl ParallelNode<S, C>) -> &mut Self
    where
        S: State,
    {
        self.add_step(name.into(), WorkDeclaration::Branch(Box::new(node)))
    }

    /// Adds a group: branches that run side by side, each a sequence of branch nodes and groups, by name.
    ///
    /// Edges lead to and from the group by its own name. What follows it runs once, when all branches are done.
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

    /// Sets what a node is run with: retries, a timeout, a fallback. A second call replaces what the first one said.
    #[track_caller]
    pub fn set_node_options(&mut self, node: impl Into<Arc<str>>, options: NodeOptions) -> &mut Self {
        self.options.push(OptionsDeclaration { node: node.into(), options, location: Location::caller() });
        self
    }

    /// After `from`, run `to`.
    #[track_caller]
    pub fn add_edge(&mut self, from: impl Into<EdgeSource>, to: impl Into<EdgeTarget>) -> &mut Self {
        self.edges.push(EdgeDeclaration { from: from.into(), to: to.into(), location: Location::caller() });
        self
    }

    /// After `from`, go where the arm leads that has what `router` makes of the state.
    ///
    /// A route that no arm has ends the run with an error that names it; `graph!` leaves none out.
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
        let choose = move |state: &S| arm_of(&known, &router(state));
        self.add_arms(from.into(), Some(Box::new(choose)), arms, duplicates)
    }

    #[track_caller]
    pub(crate) fn add_arms(
        &mut self,
        from: Arc<str>,
        choose: Option<Box<dyn Choose<S>>>,
        arms: Vec<(Arc<str>, EdgeTarget)>,
        duplicates: Vec<Arc<str>>,
    ) -> &mut Self {
        self.routes.push(RouteDeclaration { from, choose, arms, duplicates, location: Location::caller() });
        self
    }

    /// Every run begins at `node`.
    #[track_caller]
    pub fn set_entry_point(&mut self, node: impl Into<String>) -> &mut Self {
        self.add_edge(START, node.into())
    }

    /// Checks the graph and makes it ready to run.
    ///
    /// # Errors
    ///
    /// [`BuildError`] lists every problem, each with the call that made it.
    pub fn compile(self, options: CompileOptions<C>) -> Result<CompiledGraph<S, C>, BuildError>
    where
        S: State,
    {
        let name = Arc::clone(&self.name);
        let Subgraph { plan, outline } = self.into_subgraph()?;
        Ok(CompiledGraph::new(name, plan, outline, options))
    }

    /// Checks the graph and makes it a part of another.
    pub(crate) fn into_subgraph(self) -> Result<Subgraph<S, C>, BuildError>
    where
        S: State,
    {
        let (plan, outline) = validate::validate(self)?;
        Ok(Subgraph { plan, outline })
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

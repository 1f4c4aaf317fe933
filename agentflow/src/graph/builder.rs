//! [`StateGraph`]: a graph described call by call, for graphs that are known only at run time.

use std::{fmt, panic::Location, sync::Arc};

use super::{BuildError, CompileOptions, CompiledGraph, Step, compiled::Plan, validate};
use crate::{Node, State};

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

/// Where an edge begins: a node's name, or [`START`].
#[derive(Clone, Debug)]
pub struct Source(pub(super) Option<Arc<str>>);

/// Where an edge leads: a node's name, or [`END`].
#[derive(Clone, Debug)]
pub struct Target(pub(super) Option<Arc<str>>);

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
place!(Source, START);
place!(Target, END);

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
/// graph.add_edge("GREET", END);
/// let app = graph.compile(CompileOptions::new())?;
///
/// let state = app.invoke(AgentState::default(), RunConfig::new()).await?;
/// assert_eq!(state.context[0].text(), "hello");
/// # Ok(())
/// # }
/// ```
pub struct StateGraph<S, C = ()> {
    pub(super) name: Arc<str>,
    pub(super) nodes: Vec<NodeDeclaration<S, C>>,
    pub(super) edges: Vec<EdgeDeclaration>,
    pub(super) created: &'static Location<'static>,
}

pub(super) struct NodeDeclaration<S, C> {
    pub(super) step: Step<S, C>,
    pub(super) location: &'static Location<'static>,
}

pub(super) struct EdgeDeclaration {
    pub(super) from: Source,
    pub(super) to: Target,
    pub(super) location: &'static Location<'static>,
}

impl<S: State, C: Send + Sync + 'static> StateGraph<S, C> {
    /// A graph without nodes.
    #[must_use]
    #[track_caller]
    #[allow(
        clippy::new_without_default,
        reason = "a graph without nodes is no graph: there is no default one"
    )]
    pub fn new() -> Self {
        Self {
            name: "graph".into(),
            nodes: Vec::new(),
            edges: Vec::new(),
            created: Location::caller(),
        }
    }

    /// What the graph is called in spans and pictures; `graph` if nothing is said.
    pub fn set_name(&mut self, name: impl Into<Arc<str>>) -> &mut Self {
        self.name = name.into();
        self
    }

    /// Adds a node: the handle that `#[node]` made (`my_node {}`, or `MAIN` for `#[node(MAIN)]`), or any other value
    /// that implements [`Node`].
    #[track_caller]
    pub fn add_node(&mut self, name: impl Into<Arc<str>>, node: impl Node<S, C, Output = ()>) -> &mut Self {
        let step = Step::new(name.into(), node);
        self.nodes.push(NodeDeclaration {
            step,
            location: Location::caller(),
        });
        self
    }

    /// After `from`, run `to`.
    #[track_caller]
    pub fn add_edge(&mut self, from: impl Into<Source>, to: impl Into<Target>) -> &mut Self {
        self.edges.push(EdgeDeclaration {
            from: from.into(),
            to: to.into(),
            location: Location::caller(),
        });
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
    pub fn compile(self, options: CompileOptions<C>) -> Result<CompiledGraph<S, C>, BuildError> {
        let wiring = validate::validate(&self)?;
        let steps = self.nodes.into_iter().map(|node| node.step).collect();
        Ok(CompiledGraph::new(
            self.name,
            Plan {
                steps,
                next: wiring.next,
                entry: wiring.entry,
            },
            options,
        ))
    }
}

impl<S, C> fmt::Debug for StateGraph<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<_> = self.nodes.iter().map(|node| &node.step.name).collect();
        f.debug_struct("StateGraph")
            .field("name", &self.name)
            .field("nodes", &nodes)
            .finish_non_exhaustive()
    }
}

//! Graphs: [`StateGraph`] and [`graph!`](macro@crate::graph) describe them, [`StateGraph::compile`] checks them, and a
//! [`CompiledGraph`] runs them.

// The vocabulary of a graph and its pictures: they know no nodes.
mod arms;
pub(crate) mod commit;
mod dot;
mod endpoint;
mod error;
mod mermaid;
pub(crate) mod options;
pub(crate) mod outline;
mod picture;
#[cfg(feature = "svg")]
mod svg;
pub(crate) mod topology;

// The description of a graph, and the plan that it becomes.
mod builder;
mod lower;
pub(crate) mod plan;
mod validate;

// The app of a graph, and the graphs that run.
pub(crate) mod app;
mod compiled;
mod erased;
mod subgraph;

pub(crate) use arms::ArmDeclaration;
pub use arms::Arms;
pub(crate) use builder::WorkDeclaration;
pub use builder::{ItemsOf, StateGraph};
pub use commit::Commit;
pub use compiled::CompiledGraph;
pub use endpoint::{END, EdgeSource, EdgeTarget, JOIN, START};
pub use erased::ErasedGraph;
pub use error::{BuildError, BuildProblem, BuildProblemKind};
pub use options::{CompileOptions, EachOptions, NodeOptions};
#[doc(hidden)]
pub use outline::Outline;
#[doc(hidden)]
pub use subgraph::{MappedGraph, ParallelSubgraph, Subgraph};

pub use crate::node::{Node, NodeContext, NodeInfo, ParallelContext, ParallelNode};

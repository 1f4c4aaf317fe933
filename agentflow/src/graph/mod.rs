//! Graphs: [`StateGraph`] and [`graph!`](macro@crate::graph) describe them, [`StateGraph::compile`] checks them, and a
//! [`CompiledGraph`] runs them.

pub(crate) mod app;
mod arms;
mod builder;
pub(crate) mod commit;
mod compiled;
mod dot;
mod endpoint;
mod erased;
mod error;
mod lower;
mod mermaid;
pub(crate) mod options;
pub(crate) mod outline;
mod picture;
pub(crate) mod plan;
mod subgraph;
#[cfg(feature = "svg")]
mod svg;
pub(crate) mod topology;
mod validate;

pub(crate) use arms::ArmDeclaration;
pub use arms::Arms;
pub use builder::{ItemsOf, StateGraph};
pub(crate) use builder::{WorkDeclaration, collect_items};
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

pub use crate::node::{Node, NodeContext, ParallelContext, ParallelNode};

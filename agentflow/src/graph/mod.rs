//! Graphs: described with [`StateGraph`] or [`graph!`](crate::graph), checked as a whole, compiled to a
//! [`CompiledGraph`].

mod builder;
mod compiled;
mod draw;
mod erased;
mod error;
mod options;
mod plan;
mod subgraph;
mod validate;

pub use builder::{END, EdgeSource, EdgeTarget, START, StateGraph};
pub(crate) use compiled::App;
pub use compiled::CompiledGraph;
#[doc(hidden)]
pub use draw::Outline;
pub use erased::ErasedGraph;
pub use error::{BuildError, BuildProblem, BuildProblemKind};
pub use options::{CompileOptions, NodeOptions};
pub(crate) use plan::{BoxFuture, Choose, ErasedNode, ErasedParallelNode, Plan, Step, Way, Work};
#[doc(hidden)]
pub use subgraph::{MappedGraph, Subgraph};

pub use crate::node::{Node, NodeContext, ParallelContext, ParallelNode};

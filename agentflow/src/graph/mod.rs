//! Graphs: described with [`StateGraph`] or [`graph!`](crate::graph), checked as a whole, compiled to a
//! [`CompiledGraph`].

mod builder;
mod compiled;
mod draw;
mod error;
mod options;
mod plan;
mod subgraph;
mod validate;

pub use builder::{END, START, Source, StateGraph, Target};
pub(crate) use compiled::App;
pub use compiled::CompiledGraph;
pub use draw::Outline;
pub use error::{BuildError, Problem, ProblemKind};
pub use options::{CompileOptions, NodeOptions};
pub(crate) use plan::{BoxFuture, Choose, ErasedNode, ErasedParallelNode, Plan, Step, Way, Work};
pub use subgraph::{MappedGraph, Subgraph};

//! Graphs: described with [`StateGraph`] or [`graph!`](crate::graph), checked as a whole, compiled to a
//! [`CompiledGraph`].

mod builder;
mod compiled;
mod error;
mod options;
mod validate;

pub use builder::{END, START, Source, StateGraph, Target};
pub use compiled::CompiledGraph;
pub(crate) use compiled::{App, Next, Step};
pub use error::{BuildError, Problem, ProblemKind};
pub use options::CompileOptions;

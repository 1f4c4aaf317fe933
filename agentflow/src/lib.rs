//! A graph runtime for agent services.

#[doc(hidden)]
pub mod __private;
mod run_id;
mod state;

pub use agentflow_macros::State;
pub use run_id::{InvalidRunId, RunId};
pub use state::State;

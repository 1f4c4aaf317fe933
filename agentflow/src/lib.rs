//! A graph runtime for agent services.

mod run_id;

pub use run_id::{InvalidRunId, RunId};

//! All that generated code may name, and nothing else. Not API: it changes without notice.

pub use crate::state::generated as state;

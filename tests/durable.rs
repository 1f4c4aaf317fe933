//! Durable threads, on every store: what the death of a process, a faulty store and a shutdown leave behind.
//!
//! A process is a runtime of its own, with its own handle on the store. It dies by being dropped in the middle; its store
//! answers nothing from then on.

mod crash_points;
mod edits;
mod failures;
pub(crate) mod faulty_store;
mod nodes;
pub(crate) mod process;
mod questions;
mod shutdowns;
pub(crate) mod stores;
mod transitions;

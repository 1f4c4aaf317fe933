//! What a task manager is built on, from one place, so that a model checker can take its place.

pub(super) use std::{sync::Mutex, thread_local};

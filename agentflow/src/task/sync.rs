//! What a task manager is built on, from one place, so that a model checker (`task::model`) can take its place.

#[cfg(all(test, agentflow_model))]
pub(super) use super::model::sync::*;

#[cfg(not(all(test, agentflow_model)))]
pub(super) use std::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU8, AtomicU32},
    },
    thread_local,
};
#[cfg(not(all(test, agentflow_model)))]
pub(super) use tokio::{
    runtime::Handle,
    sync::{Notify, futures::Notified},
    task::JoinHandle,
    time::{Sleep, sleep_until},
};

//! The synchronization primitives of the task manager, in one place, so that a model checker can replace them all.

#[cfg(not(all(test, agentflow_model)))]
pub(crate) use std::{
    sync::{
        MutexGuard, Once,
        atomic::{AtomicBool, AtomicU8, AtomicU32},
    },
    thread_local,
};

#[cfg(not(all(test, agentflow_model)))]
pub(crate) use tokio::{
    runtime::Handle,
    sync::{Notify, futures::Notified},
    task::JoinHandle,
    time::{Sleep, sleep_until},
};

#[cfg(all(test, agentflow_model))]
pub(crate) use super::model::sync::*;
#[cfg(not(all(test, agentflow_model)))]
pub(crate) use crate::sync::Mutex;

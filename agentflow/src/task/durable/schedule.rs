//! [`Schedules`]: the schedules that an app has registered.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use crate::{store::Overlap, task::calendar::Calendar};

/// The schedules that an app has registered, by name.
pub(crate) type Schedules = BTreeMap<Arc<str>, Arc<RegisteredSchedule>>;

/// A schedule that an app has registered: the worker of the app fires it.
#[derive(Clone, Debug)]
pub(crate) struct RegisteredSchedule {
    pub(crate) task: &'static str,
    pub(crate) calendar: Calendar,
    /// The arguments of the task, as JSON.
    pub(crate) args: Bytes,
    /// The policy of the task, as JSON.
    pub(crate) policy: Bytes,
    pub(crate) overlap: Overlap,
}

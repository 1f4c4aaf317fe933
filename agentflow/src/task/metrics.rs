//! What the `metrics` facade is told of tasks, with the feature `metrics`. Without it nothing here does anything.
//!
//! Tasks are told apart by their names only. A name that is made up for each task would make a time series for each, so
//! only so many names become labels; the others are `other`.

use std::time::Duration;

use super::{builder::SpawnError, outcome::TaskOutcome};

/// Something to be counted or measured.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "nobody reads it"))]
pub(super) enum Change {
    Spawned,
    Started { waited: Duration },
    Retried,
    Ended { outcome: TaskOutcome, age: Duration },
    Rejected(SpawnError),
}

#[cfg(not(feature = "metrics"))]
#[derive(Debug, Default)]
pub(super) struct Metrics(());

#[cfg(not(feature = "metrics"))]
impl Metrics {
    #[allow(clippy::unused_self, reason = "it has no state without the feature")]
    pub(super) fn record(&self, _task: &str, _change: Change) {}
}

/// The names that are labels.
#[cfg(feature = "metrics")]
#[derive(Debug, Default)]
pub(super) struct Metrics(std::sync::Mutex<std::collections::HashSet<std::sync::Arc<str>>>);

#[cfg(feature = "metrics")]
impl Metrics {
    const MAX_NAMES: usize = 256;

    /// A recorder that panics must not take the task's place, its end, or the waiting of others away.
    pub(super) fn record(&self, task: &str, change: Change) {
        crate::error::catch_panic(|| self.tell(task, change));
    }

    fn tell(&self, task: &str, change: Change) {
        use metrics::{SharedString, counter, gauge, histogram};

        let name = self.label(task).map_or_else(|| SharedString::const_str("other"), SharedString::from_shared);
        match change {
            Change::Spawned => {
                counter!("agentflow_tasks_spawned_total", "name" => name.clone()).increment(1);
                gauge!("agentflow_tasks_in_flight", "name" => name).increment(1.0);
            }
            Change::Started { waited } => {
                histogram!("agentflow_task_queue_wait_seconds", "name" => name).record(waited.as_secs_f64());
            }
            Change::Retried => counter!("agentflow_task_retries_total", "name" => name).increment(1),
            Change::Ended { outcome, age } => {
                gauge!("agentflow_tasks_in_flight", "name" => name.clone()).decrement(1.0);
                counter!("agentflow_tasks_ended_total", "name" => name.clone(), "outcome" => outcome.as_str())
                    .increment(1);
                histogram!("agentflow_task_duration_seconds", "name" => name, "outcome" => outcome.as_str())
                    .record(age.as_secs_f64());
            }
            Change::Rejected(why) => {
                counter!("agentflow_tasks_rejected_total", "name" => name, "reason" => why.as_str()).increment(1);
            }
        }
    }

    /// The name as a label, if it is one: once it is, it stays so.
    fn label(&self, name: &str) -> Option<std::sync::Arc<str>> {
        let mut names = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(known) = names.get(name) {
            return Some(known.clone());
        }
        (names.len() < Self::MAX_NAMES).then(|| {
            let new: std::sync::Arc<str> = name.into();
            names.insert(new.clone());
            new
        })
    }
}

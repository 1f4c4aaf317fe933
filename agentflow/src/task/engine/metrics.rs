//! [`Metrics`]: reports tasks to the `metrics` facade, with the feature `metrics`; does nothing without it.
//!
//! A task's name is its only label. A name made up for each task would create a time series for each, so the number of
//! names that become labels is limited; all others are `other`.

use std::time::Duration;

use super::super::outcome::TaskOutcome;

/// A change that is counted or measured.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "read with the feature only"))]
pub(crate) enum Change {
    Spawned,
    Started {
        waited: Duration,
    },
    Retried,
    Ended {
        outcome: TaskOutcome,
        age: Duration,
    },
    /// The reason as one word.
    Rejected(&'static str),
}

#[cfg(not(feature = "metrics"))]
#[derive(Debug, Default)]
pub(crate) struct Metrics(());

#[cfg(not(feature = "metrics"))]
impl Metrics {
    #[allow(clippy::unused_self, reason = "it has no state without the feature")]
    pub(crate) fn record(&self, _task: &str, _change: Change) {}
}

/// The names that have become labels.
#[cfg(feature = "metrics")]
#[derive(Debug, Default)]
pub(crate) struct Metrics(crate::sync::Mutex<std::collections::HashSet<std::sync::Arc<str>>>);

#[cfg(feature = "metrics")]
impl Metrics {
    const MAX_NAMES: usize = 256;

    /// Reports the change to the installed recorder.
    pub(crate) fn record(&self, task: &str, change: Change) {
        // A recorder is user code: its panic must not leak the task's slot, lose its end, or leave callers waiting.
        crate::panics::catch_panic(|| self.report(task, change));
    }

    fn report(&self, task: &str, change: Change) {
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
                counter!("agentflow_tasks_rejected_total", "name" => name, "reason" => why).increment(1);
            }
        }
    }

    /// Returns the name as a label, if it is or becomes one. A name that is a label stays one.
    fn label(&self, name: &str) -> Option<std::sync::Arc<str>> {
        let mut names = self.0.lock();
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

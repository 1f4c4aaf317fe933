//! [`RunMeter`] and [`AttemptMeter`]: report runs and the attempts of nodes to the `metrics` facade, with the feature
//! `metrics`; they are empty without it.
//!
//! Each is made when its run or attempt begins, and reports the end when `ended` is called, or when it is dropped with
//! the future.

#[cfg(not(feature = "metrics"))]
pub(super) use off::{AttemptMeter, RunMeter, rejected};
#[cfg(feature = "metrics")]
pub(super) use on::{AttemptMeter, RunMeter, rejected};

#[cfg(not(feature = "metrics"))]
#[allow(clippy::unused_self, reason = "a meter has no state without the feature")]
mod off {
    use std::{marker::PhantomData, sync::Arc};

    use super::super::{error::RunErrorKind, path_name::NodeOnPath};
    use crate::error::NodeError;

    pub(crate) struct RunMeter;

    impl RunMeter {
        pub(crate) fn start(_graph: &Arc<str>) -> Self {
            Self
        }

        pub(crate) fn ended(self, _error: Option<&RunErrorKind>) {}
    }

    pub(crate) struct AttemptMeter<'a>(PhantomData<NodeOnPath<'a>>);

    impl<'a> AttemptMeter<'a> {
        pub(crate) fn start(_graph: &'a Arc<str>, _node: NodeOnPath<'a>) -> Self {
            Self(PhantomData)
        }

        pub(crate) fn ended(self, _error: Option<&NodeError>) {}
    }

    pub(crate) fn rejected(_graph: &Arc<str>, _reason: &RunErrorKind) {}
}

#[cfg(feature = "metrics")]
mod on {
    use std::sync::Arc;

    use metrics::{SharedString, counter, gauge, histogram};
    use tokio::time::Instant;

    use super::super::{
        error::{Failure, RunErrorKind},
        path_name::NodeOnPath,
    };
    use crate::{
        error::{AttemptTimedOut, NodeError, Panicked},
        panics::catch_panic,
    };

    /// Counts a run that did not start.
    pub(crate) fn rejected(graph: &Arc<str>, reason: &RunErrorKind) {
        let graph = SharedString::from_shared(Arc::clone(graph));
        catch_panic(|| {
            counter!("agentflow_runs_rejected_total", "graph" => graph, "reason" => outcome(reason)).increment(1);
        });
    }

    /// Measures one run.
    pub(crate) struct RunMeter {
        graph: SharedString,
        started: Instant,
        outcome: &'static str,
    }

    impl RunMeter {
        pub(crate) fn start(graph: &Arc<str>) -> Self {
            let meter = Self {
                graph: SharedString::from_shared(Arc::clone(graph)),
                started: Instant::now(),
                outcome: "dropped",
            };
            // A recorder is user code: its panic must not change the run.
            catch_panic(|| {
                counter!("agentflow_runs_started_total", "graph" => meter.graph.clone()).increment(1);
                gauge!("agentflow_runs_in_flight", "graph" => meter.graph.clone()).increment(1.0);
            });
            meter
        }

        pub(crate) fn ended(mut self, error: Option<&RunErrorKind>) {
            self.outcome = error.map_or("completed", outcome);
        }
    }

    impl Drop for RunMeter {
        fn drop(&mut self) {
            catch_panic(|| {
                let Self { graph, started, outcome } = self;
                gauge!("agentflow_runs_in_flight", "graph" => graph.clone()).decrement(1.0);
                counter!("agentflow_runs_ended_total", "graph" => graph.clone(), "outcome" => *outcome).increment(1);
                histogram!("agentflow_run_duration_seconds", "graph" => graph.clone(), "outcome" => *outcome)
                    .record(started.elapsed().as_secs_f64());
            });
        }
    }

    /// Measures one attempt of a node.
    pub(crate) struct AttemptMeter<'a> {
        graph: &'a Arc<str>,
        node: NodeOnPath<'a>,
        started: Instant,
        outcome: &'static str,
    }

    impl<'a> AttemptMeter<'a> {
        pub(crate) fn start(graph: &'a Arc<str>, node: NodeOnPath<'a>) -> Self {
            Self { graph, node, started: Instant::now(), outcome: "interrupted" }
        }

        pub(crate) fn ended(mut self, error: Option<&NodeError>) {
            self.outcome = match error {
                None => "completed",
                Some(error) if error.downcast_ref::<Panicked>().is_some() => "panicked",
                Some(error) if error.downcast_ref::<AttemptTimedOut>().is_some() => "timed_out",
                Some(error) if error.is_question() => "asked",
                // A nested graph ended because its run was stopped.
                Some(error) => match error.downcast_ref::<Failure>().map(|failure| &failure.kind) {
                    Some(
                        RunErrorKind::Cancelled { .. } | RunErrorKind::TimedOut { .. } | RunErrorKind::ShutDown { .. },
                    ) => "interrupted",
                    _ => "failed",
                },
            };
        }
    }

    impl Drop for AttemptMeter<'_> {
        fn drop(&mut self) {
            catch_panic(|| {
                let Self { graph, node, started, outcome } = *self;
                let labels = [
                    ("graph", SharedString::from_shared(Arc::clone(graph))),
                    ("node", SharedString::from_shared(node.without_items())),
                    ("outcome", SharedString::const_str(outcome)),
                ];
                counter!("agentflow_node_attempts_total", &labels).increment(1);
                histogram!("agentflow_node_duration_seconds", &labels).record(started.elapsed().as_secs_f64());
            });
        }
    }

    /// Returns the end of a run as one word.
    fn outcome(error: &RunErrorKind) -> &'static str {
        match error {
            RunErrorKind::Closed => "closed",
            RunErrorKind::NoRuntime => "no_runtime",
            RunErrorKind::UnknownNode { .. } => "unknown_node",
            RunErrorKind::InsideGroup { .. } => "inside_group",
            RunErrorKind::Node(_) => "failed",
            RunErrorKind::Asked { .. } | RunErrorKind::StillAsking { .. } => "asked",
            RunErrorKind::Store(_) => "store",
            RunErrorKind::Unwritable { .. } => "unwritable",
            RunErrorKind::Stopped { .. } => "stopped",
            RunErrorKind::NotStarted { .. } => "not_started",
            RunErrorKind::Conflict { .. } => "conflict",
            RunErrorKind::Cancelled { .. } => "cancelled",
            RunErrorKind::TimedOut { .. } => "timed_out",
            RunErrorKind::ShutDown { .. } => "shut_down",
            RunErrorKind::RecursionLimit { .. } => "recursion_limit",
        }
    }
}

//! [`Event`]: something that happened in a run.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::{
    run_id::RunId,
    seconds::{self, optional as optional_seconds},
};

/// Something that happened in a run, with its time.
///
/// Events are numbered from 0 in the order in which they happened. In JSON, the `type` and the fields of the kind are on
/// the same level as the fields of the event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Event {
    /// The number of the event in its run, from 0.
    pub sequence: u64,
    /// The time of the event by the system's clock. Serialized as milliseconds since 1970.
    #[serde(with = "unix_millis")]
    pub time: SystemTime,
    /// The run.
    pub run: RunId,
    /// The kind of event.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// A kind of event. A node inside a subgraph is named `SUBGRAPH/NODE`, and one that runs for an item of an `each`
/// `NODE[INDEX]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// The first event.
    #[non_exhaustive]
    RunStarted {
        /// The name of the graph.
        graph: String,
    },
    /// An attempt of a node begins.
    #[non_exhaustive]
    NodeStarted {
        /// The node.
        node: String,
        /// The number of the attempt, from 1.
        attempt: u32,
    },
    /// A node succeeded, and its changes are committed.
    #[non_exhaustive]
    NodeEnded {
        /// The node.
        node: String,
        /// The number of the attempt, from 1.
        attempt: u32,
        /// The duration of the attempt. All durations of events are serialized as seconds.
        #[serde(with = "seconds")]
        elapsed: Duration,
    },
    /// An attempt of a node failed, panicked or timed out.
    #[non_exhaustive]
    NodeFailed {
        /// The node.
        node: String,
        /// The number of the attempt, from 1.
        attempt: u32,
        /// The duration of the attempt.
        #[serde(with = "seconds")]
        elapsed: Duration,
        /// The text of the error.
        error: String,
        /// The delay before the next attempt; `None` if there is none.
        #[serde(with = "optional_seconds")]
        retry_in: Option<Duration>,
    },
    /// A node asked a question, and none of its changes are kept.
    #[non_exhaustive]
    NodeAsked {
        /// The node.
        node: String,
        /// The number of the attempt, from 1.
        attempt: u32,
        /// The duration of the attempt.
        #[serde(with = "seconds")]
        elapsed: Duration,
        /// The node that asked, if `node` is a graph that contains it. It has an event of its own, before this one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        inside: Option<String>,
        /// The question.
        question: serde_json::Value,
    },
    /// A node's update was merged into the state. A node in a group is merged with the others, at the join.
    #[non_exhaustive]
    Updated {
        /// The node.
        node: String,
        /// The fields that changed.
        fields: Vec<String>,
    },
    /// A decision chose a route.
    #[non_exhaustive]
    RouteTaken {
        /// The node or group before the decision.
        node: String,
        /// The pattern that matched.
        route: String,
        /// The target of the route: a node, `END`, or `JOIN` at the end of a branch; inside a subgraph `SUBGRAPH/END`.
        to: String,
        /// The type of the value that the edge carries to the node, if it carries one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        carries: Option<String>,
    },
    /// The branches of a group begin.
    #[non_exhaustive]
    GroupStarted {
        /// The first node of each branch.
        nodes: Vec<String>,
        /// The number of items, for an `each`. Its branch runs once for each item, in nodes named `NODE[INDEX]`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        items: Option<usize>,
    },
    /// The branches of a group have all ended, and their updates are merged.
    #[non_exhaustive]
    GroupJoined {
        /// The first node of each branch.
        nodes: Vec<String>,
        /// The fields that changed.
        fields: Vec<String>,
        /// The first node of the branch that succeeded first, for an `any`. The other branches were dropped.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        winner: Option<String>,
    },
    /// A branch failed, two branches replaced the same field, or the group was dropped: the run was interrupted, a timeout
    /// around the group expired, or a branch around it failed. Nothing of the group is merged, and nodes that had started
    /// but not ended were dropped.
    #[non_exhaustive]
    GroupFailed {
        /// The first node of each branch.
        nodes: Vec<String>,
        /// The text of the error.
        error: String,
    },
    /// A node failed, and the run continues with its `on_error`.
    #[non_exhaustive]
    FallbackTaken {
        /// The node that failed.
        node: String,
        /// The node at which the run continues.
        to: String,
    },
    /// A node wrote an event with [`EventWriter::emit`](super::EventWriter::emit).
    #[non_exhaustive]
    Custom {
        /// The node.
        node: String,
        /// The name that the node gave the event.
        name: String,
        /// The data of the event.
        data: serde_json::Value,
    },
    /// A node started a background task.
    #[non_exhaustive]
    TaskStarted {
        /// The node.
        node: String,
        /// The task's name.
        task: String,
        /// The task's id.
        id: u64,
    },
    /// A background task of the run ended. Tasks that end after the run have no such event.
    #[non_exhaustive]
    TaskEnded {
        /// The node.
        node: String,
        /// The task's name.
        task: String,
        /// The task's id.
        id: u64,
        /// The outcome of the task: `completed`, `failed`, ….
        outcome: String,
    },
    /// A background task of the run reported its progress. While the reader is 64 events behind, progress is left out.
    #[non_exhaustive]
    TaskProgress {
        /// The node.
        node: String,
        /// The task's name.
        task: String,
        /// The task's id.
        id: u64,
        /// The share that is done, from 0 to 1.
        fraction: f64,
        /// A short description of the current activity.
        message: String,
    },
    /// The reader was too slow, and this many starts, ends and reports of progress of tasks were left out.
    #[non_exhaustive]
    TasksMissed {
        /// The number of events left out.
        count: u64,
    },
    /// The last event.
    #[non_exhaustive]
    RunEnded {
        /// The text of the error that ended the run; `None` if the run reached `END`.
        error: Option<String>,
    },
}

mod unix_millis {
    use std::time::{Duration, SystemTime};

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        serializer.serialize_u64(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
        let since = Duration::from_millis(u64::deserialize(deserializer)?);
        SystemTime::UNIX_EPOCH
            .checked_add(since)
            .ok_or_else(|| serde::de::Error::custom("a time beyond what the system can name"))
    }
}

impl EventKind {
    /// Returns the name of the kind, which is the `type` in its JSON. Use it as the event name of server-sent events.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::RunStarted { .. } => "run_started",
            Self::NodeStarted { .. } => "node_started",
            Self::NodeEnded { .. } => "node_ended",
            Self::NodeFailed { .. } => "node_failed",
            Self::NodeAsked { .. } => "node_asked",
            Self::Updated { .. } => "updated",
            Self::RouteTaken { .. } => "route_taken",
            Self::GroupStarted { .. } => "group_started",
            Self::GroupJoined { .. } => "group_joined",
            Self::GroupFailed { .. } => "group_failed",
            Self::FallbackTaken { .. } => "fallback_taken",
            Self::Custom { .. } => "custom",
            Self::TaskStarted { .. } => "task_started",
            Self::TaskEnded { .. } => "task_ended",
            Self::TaskProgress { .. } => "task_progress",
            Self::TasksMissed { .. } => "tasks_missed",
            Self::RunEnded { .. } => "run_ended",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_kinds_name_is_its_type_in_json() {
        let node = || "A".to_owned();
        let zero = std::time::Duration::ZERO;
        let kinds = [
            EventKind::RunStarted { graph: node() },
            EventKind::NodeStarted { node: node(), attempt: 1 },
            EventKind::NodeEnded { node: node(), attempt: 1, elapsed: zero },
            EventKind::NodeFailed { node: node(), attempt: 1, elapsed: zero, error: node(), retry_in: None },
            EventKind::NodeAsked { node: node(), attempt: 1, elapsed: zero, inside: None, question: json!(null) },
            EventKind::Updated { node: node(), fields: vec![] },
            EventKind::RouteTaken { node: node(), route: node(), to: node(), carries: None },
            EventKind::GroupStarted { nodes: vec![], items: None },
            EventKind::GroupJoined { nodes: vec![], fields: vec![], winner: None },
            EventKind::GroupFailed { nodes: vec![], error: node() },
            EventKind::FallbackTaken { node: node(), to: node() },
            EventKind::Custom { node: node(), name: node(), data: json!(1) },
            EventKind::TaskStarted { node: node(), task: node(), id: 1 },
            EventKind::TaskEnded { node: node(), task: node(), id: 1, outcome: node() },
            EventKind::TaskProgress { node: node(), task: node(), id: 1, fraction: 0.5, message: node() },
            EventKind::TasksMissed { count: 1 },
            EventKind::RunEnded { error: None },
        ];
        for kind in kinds {
            assert_eq!(serde_json::to_value(&kind).expect("JSON")["type"], kind.name());
        }
    }
}

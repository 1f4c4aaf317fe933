//! A kind of event has one name, in Rust and in JSON.

use agentflow::EventKind;
use serde_json::json;

#[test]
fn a_kinds_name_is_its_type_in_json() {
    let node = || "A".to_owned();
    let zero = std::time::Duration::ZERO;
    let kinds = [
        EventKind::RunStarted { graph: node() },
        EventKind::NodeStarted { node: node(), attempt: 1 },
        EventKind::NodeEnded { node: node(), attempt: 1, elapsed: zero },
        EventKind::NodeFailed { node: node(), attempt: 1, elapsed: zero, error: node(), retry_in: None },
        EventKind::Updated { node: node(), fields: vec![] },
        EventKind::RouteTaken { node: node(), route: node(), to: node() },
        EventKind::GroupStarted { nodes: vec![] },
        EventKind::GroupJoined { nodes: vec![], fields: vec![] },
        EventKind::GroupFailed { nodes: vec![], error: node() },
        EventKind::FallbackTaken { node: node(), to: node() },
        EventKind::Custom { node: node(), name: node(), data: json!(1) },
        EventKind::TaskStarted { node: node(), task: node(), id: 1 },
        EventKind::TaskEnded { node: node(), task: node(), id: 1, outcome: node() },
        EventKind::RunEnded { error: None },
    ];
    for kind in kinds {
        assert_eq!(serde_json::to_value(&kind).unwrap()["type"], kind.name());
    }
}

//! `AgentState` and `Message`: the merge of messages, and their JSON.

use agentflow::{
    AgentState, Message, State,
    message::{Content, MessageId, Role, ToolCall},
    state::FieldChange,
};
use serde_json::{Value, json};

fn texts(state: &AgentState) -> Vec<String> {
    state.context.iter().map(Message::text).collect()
}

fn say(text: &str, id: &str) -> Message {
    Message::user(text).with_id(id)
}

#[test]
fn a_message_with_a_known_id_replaces_the_old_one() {
    let mut state = AgentState::from_messages([say("a", "1"), say("b", "2"), say("c", "3")]);
    state.apply(AgentState::update().context([say("B", "2")]));
    assert_eq!(texts(&state), ["a", "B", "c"]);
}

#[test]
fn messages_with_new_ids_are_appended_in_order() {
    let mut state = AgentState::from_messages([say("a", "1")]);
    state.apply(AgentState::update().context([say("b", "2"), say("A", "1")]).context([say("c", "3")]));
    assert_eq!(texts(&state), ["A", "b", "c"]);
}

#[test]
fn the_later_of_two_messages_with_one_id_wins() {
    let mut state = AgentState::default();
    state.apply(AgentState::update().context([say("draft", "1"), say("b", "2"), say("final", "1")]));
    assert_eq!(texts(&state), ["final", "b"]);
}

#[test]
fn equal_texts_are_different_messages() {
    let mut state = AgentState::from_user("again");
    state.apply(AgentState::update().context([Message::user("again")]));
    assert_eq!(texts(&state), ["again", "again"]);
}

#[test]
fn the_context_merges_and_the_summary_is_replaced() {
    let update = AgentState::update().context([say("a", "1")]).context_summary("so far".to_owned());
    let changes = [FieldChange::new("context", false), FieldChange::new("context_summary", true)];
    assert_eq!(AgentState::changes(&update), changes);
    let mut state = AgentState::default();
    state.apply(update);
    assert_eq!(state.context_summary.as_deref(), Some("so far"));
}

#[test]
fn the_last_message_is_the_newest() {
    assert_eq!(AgentState::default().last_message(), None);
    let state = AgentState::from_messages([say("a", "1"), say("b", "2")]);
    assert_eq!(state.last_message().unwrap().text(), "b");
}

#[test]
fn a_role_is_printed_as_in_json() {
    for role in [Role::System, Role::User, Role::Assistant, Role::Tool] {
        assert_eq!(serde_json::json!(role), role.to_string());
    }
    assert_eq!(format!("[{:<6}]", Role::User), "[user  ]");
}

#[test]
fn each_constructor_has_its_role() {
    let roles = [
        Message::system("s").role,
        Message::user("u").role,
        Message::assistant("a").role,
        Message::tool_result("1", "r").role,
        Message::tool_error("1", "e").role,
    ];
    assert_eq!(roles, [Role::System, Role::User, Role::Assistant, Role::Tool, Role::Tool]);
}

#[test]
fn text_is_all_text_and_nothing_else() {
    let message = Message::assistant("In ")
        .with_content(ToolCall::new("1", "look", json!({})))
        .with_content(Content::data("text/plain", "not this"))
        .with_content("trees.");
    assert_eq!(message.text(), "In trees.");
    assert_eq!(Message::tool_result("1", "output").text(), "");
}

#[test]
fn tool_calls_keep_the_order_of_the_model() {
    let message = Message::new(
        Role::Assistant,
        [ToolCall::new("1", "a", 1).into(), "then".into(), ToolCall::new("2", "b", 2).into()],
    );
    let names: Vec<_> = message.tool_calls().map(|call| call.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn new_ids_differ_and_sort_by_time() {
    let ids = [MessageId::new(), MessageId::default(), Message::user("a").id];
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
}

#[test]
fn each_content_part_has_its_type_in_json() {
    let message = say("Hello", "m-1")
        .with_content(Content::data("application/json", json!({ "a": 1 })))
        .with_content(ToolCall::new("c-1", "search", json!({ "query": "owls" })));
    assert_eq!(
        serde_json::to_value(&message).unwrap(),
        json!({
            "id": "m-1",
            "role": "user",
            "content": [
                { "type": "text", "text": "Hello" },
                { "type": "data", "media_type": "application/json", "data": { "a": 1 } },
                { "type": "tool_call", "id": "c-1", "name": "search", "arguments": { "query": "owls" } },
            ],
        })
    );
    assert_eq!(
        serde_json::to_value(&Message::tool_error("c-1", "no such owl").content).unwrap(),
        json!([{ "type": "tool_result", "call_id": "c-1", "output": "no such owl", "is_error": true }])
    );
}

#[test]
fn a_state_survives_json() {
    let mut state = AgentState::from_messages([
        Message::system("Be brief."),
        Message::user("Hello").with_content(Content::data("image/png", "iVBORw0KGgo=")),
        Message::assistant("").with_content(ToolCall::new("c", "search", Value::Null)),
        Message::tool_result("c", json!({ "found": [1, 2] })),
        Message::tool_error("c", "gone"),
    ]);
    state.context_summary = Some("so far".to_owned());
    let json = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<AgentState>(&json).unwrap(), state);
}

#[test]
fn json_may_omit_fields_and_contain_unknown_ones() {
    let state: AgentState = serde_json::from_value(json!({
        "mood": "good",
        "context": [{
            "role": "assistant",
            "tokens": 3,
            "content": [
                { "type": "text", "text": "Hello", "cached": true },
                { "type": "tool_call", "id": "c", "name": "now" },
                { "type": "tool_result", "call_id": "c" },
            ],
        }, { "role": "user" }],
    }))
    .unwrap();
    assert_eq!(texts(&state), ["Hello", ""]);
    assert_eq!(state.context[0].tool_calls().next().unwrap().arguments, Value::Null);
    assert_ne!(state.context[0].id, state.context[1].id);
}

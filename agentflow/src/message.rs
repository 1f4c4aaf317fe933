//! [`AgentState`]: a conversation of [`Message`]s.

use std::fmt;

use agentflow_macros::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// The state of an agent that holds a conversation.
///
/// Messages merge by id: a message replaces the one with the same id, or is appended if there is none.
///
/// ```
/// use agentflow::{AgentState, Message, State};
///
/// let mut state = AgentState::from_user("Where do owls sleep?");
/// let draft = Message::assistant("In");
/// let answer = Message::assistant("In trees.").with_id(draft.id.clone());
///
/// state.apply(AgentState::update().context([draft]));
/// state.apply(AgentState::update().context([answer]));
/// assert_eq!(state.context.len(), 2);
/// assert_eq!(state.last_message().unwrap().text(), "In trees.");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, State)]
#[serde(default)]
#[state(crate = crate)]
#[non_exhaustive]
pub struct AgentState {
    /// The conversation, oldest message first.
    #[state(messages)]
    pub context: Vec<Message>,
    /// A summary of the messages that are no longer in `context`.
    pub context_summary: Option<String>,
}

impl AgentState {
    /// Creates a conversation that begins with a message from the user.
    pub fn from_user(text: impl Into<String>) -> Self {
        Self::from_messages([Message::user(text)])
    }

    /// Creates a conversation from messages.
    pub fn from_messages(messages: impl IntoIterator<Item = Message>) -> Self {
        Self { context: messages.into_iter().collect(), context_summary: None }
    }

    /// Returns the newest message.
    #[must_use]
    pub fn last_message(&self) -> Option<&Message> {
        self.context.last()
    }
}

/// Merges messages by id: one whose id is in the conversation replaces the message there, the others are appended.
///
/// `#[state(messages)]` merges a field of one's own state with it.
///
/// ```
/// use agentflow::{Message, message::merge_by_id};
///
/// let draft = Message::assistant("In");
/// let answer = Message::assistant("In trees.").with_id(draft.id.clone());
/// let mut conversation = vec![draft];
/// merge_by_id(&mut conversation, vec![answer, Message::user("And by day?")]);
/// assert_eq!(conversation.len(), 2);
/// assert_eq!(conversation[0].text(), "In trees.");
/// ```
pub fn merge_by_id(context: &mut Vec<Message>, messages: Vec<Message>) {
    for message in messages {
        // The search begins at the newest: a replaced message was mostly written a moment ago.
        match context.iter_mut().rev().find(|known| known.id == message.id) {
            Some(known) => *known = message,
            None => context.push(message),
        }
    }
}

/// One turn of a conversation.
///
/// ```
/// use agentflow::{Message, message::Role};
///
/// let message = Message::assistant("In trees.");
/// assert_eq!(message.role, Role::Assistant);
/// assert_eq!(message.text(), "In trees.");
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Message {
    /// The id by which the message is merged; JSON without an id gets a new one.
    #[serde(default)]
    pub id: MessageId,
    /// The author of the message.
    pub role: Role,
    /// The parts of the message.
    #[serde(default)]
    pub content: Vec<Content>,
}

impl Message {
    /// Creates a message with a new id.
    ///
    /// ```
    /// use agentflow::{Message, message::{Content, Role}};
    ///
    /// let message = Message::new(
    ///     Role::User,
    ///     ["What is this?".into(), Content::data("image/png", "iVBORw0KGgo=")],
    /// );
    /// assert_eq!(message.text(), "What is this?");
    /// ```
    pub fn new(role: Role, content: impl IntoIterator<Item = Content>) -> Self {
        Self { id: MessageId::new(), role, content: content.into_iter().collect() }
    }

    /// Creates a message with instructions to the model.
    pub fn system(text: impl Into<String>) -> Self {
        Self::new(Role::System, [Content::text(text)])
    }

    /// Creates a message from the user.
    pub fn user(text: impl Into<String>) -> Self {
        Self::new(Role::User, [Content::text(text)])
    }

    /// Creates a message from the model.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self::new(Role::Assistant, [Content::text(text)])
    }

    /// Creates a message with the result of the tool call with this id.
    pub fn tool_result(call_id: impl Into<String>, output: impl Into<Value>) -> Self {
        Self::new(Role::Tool, [ToolResult::new(call_id, output).into()])
    }

    /// Creates a message with the error of the tool call with this id.
    pub fn tool_error(call_id: impl Into<String>, error: impl Into<Value>) -> Self {
        Self::new(Role::Tool, [ToolResult { is_error: true, ..ToolResult::new(call_id, error) }.into()])
    }

    /// Sets the id of the message. When merged, it replaces the message with that id.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<MessageId>) -> Self {
        self.id = id.into();
        self
    }

    /// Adds a part to the message.
    ///
    /// ```
    /// use agentflow::{Message, message::ToolCall};
    /// use serde_json::json;
    ///
    /// let message = Message::assistant("Let me look.")
    ///     .with_content(ToolCall::new("call-1", "search", json!({ "query": "owls" })));
    /// assert_eq!(message.tool_calls().count(), 1);
    /// ```
    #[must_use]
    pub fn with_content(mut self, content: impl Into<Content>) -> Self {
        self.content.push(content.into());
        self
    }

    /// Returns the text parts of the message, concatenated; empty if there are none.
    #[must_use]
    pub fn text(&self) -> String {
        let texts = self.content.iter().filter_map(|content| match content {
            Content::Text { text } => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    /// Returns the tool calls of the message, in order.
    pub fn tool_calls(&self) -> impl Iterator<Item = &ToolCall> {
        self.content.iter().filter_map(|content| match content {
            Content::ToolCall(call) => Some(call),
            _ => None,
        })
    }
}

/// The author of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Role {
    /// Instructions to the model.
    System,
    /// The user.
    User,
    /// The model.
    Assistant,
    /// A tool that the model called.
    Tool,
}

/// Writes the role as in JSON: `assistant`. Supports width and alignment, for printing conversations in columns.
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        })
    }
}

/// One part of a message. In JSON, `type` specifies the kind: `{"type": "text", "text": ".."}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Content {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// An image, a document, a record.
    Data {
        /// The media type, such as `image/png` or `application/json`.
        media_type: String,
        /// JSON as it is, or bytes as a string in the encoding that the reader expects, usually base64. This crate neither
        /// encodes nor decodes the string.
        data: Value,
    },
    /// A tool call by the model.
    ToolCall(ToolCall),
    /// The result of a tool call.
    ToolResult(ToolResult),
}

impl Content {
    /// Creates a text part.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into() }
    }

    /// Creates a data part: JSON as it is, bytes as an encoded string.
    pub fn data(media_type: impl Into<String>, data: impl Into<Value>) -> Self {
        Self::Data { media_type: media_type.into(), data: data.into() }
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

impl From<ToolCall> for Content {
    fn from(call: ToolCall) -> Self {
        Self::ToolCall(call)
    }
}

impl From<ToolResult> for Content {
    fn from(result: ToolResult) -> Self {
        Self::ToolResult(result)
    }
}

/// A tool call by the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ToolCall {
    /// The id that the result refers to.
    pub id: String,
    /// The name of the tool.
    pub name: String,
    /// The arguments of the call.
    #[serde(default)]
    pub arguments: Value,
}

impl ToolCall {
    /// Creates a call of the tool `name`.
    pub fn new(id: impl Into<String>, name: impl Into<String>, arguments: impl Into<Value>) -> Self {
        Self { id: id.into(), name: name.into(), arguments: arguments.into() }
    }
}

/// The result of a tool call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ToolResult {
    /// The [`ToolCall::id`] of the call.
    pub call_id: String,
    /// The result, or the error if the call failed.
    #[serde(default)]
    pub output: Value,
    /// `true` if the call failed.
    #[serde(default)]
    pub is_error: bool,
}

impl ToolResult {
    /// Creates the result of a successful call.
    pub fn new(call_id: impl Into<String>, output: impl Into<Value>) -> Self {
        Self { call_id: call_id.into(), output: output.into(), is_error: false }
    }
}

/// The id of a message: any text. A new id is a UUID of version 7.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageId(String);

impl MessageId {
    /// Creates a new, unique id.
    #[must_use]
    pub fn new() -> Self {
        Self(Uuid::now_v7().to_string())
    }

    /// Returns the id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Creates a new id.
impl Default for MessageId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for MessageId {
    fn from(id: &str) -> Self {
        Self(id.to_owned())
    }
}

impl From<String> for MessageId {
    fn from(id: String) -> Self {
        Self(id)
    }
}

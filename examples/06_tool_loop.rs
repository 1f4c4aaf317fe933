//! A model that calls tools until it has an answer: the loop at the core of most agents.
//!
//! The model follows a script, so no key is needed. It is a service of the app, which nodes inject; a real client can
//! replace it without a change to the graph.
//!
//! ```console
//! $ cargo run -p agentflow-examples --example 06_tool_loop
//! user       Is it warmer in Oslo or in Atlantis?
//! assistant  Let me look.
//!            weather({"city":"Oslo"})
//!            weather({"city":"Atlantis"})
//! tool       {"celsius":12}
//! tool       failed: "there is no weather station in Atlantis"
//! assistant  Atlantis has sunk. Perhaps Athens was meant?
//!            weather({"city":"Athens"})
//! tool       {"celsius":31}
//! assistant  Athens is 19 degrees warmer than Oslo; of Atlantis nothing is known.
//! ```

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use agentflow::{
    AgentState, Message, NodeError, Provide, Route, RunConfig, graph,
    message::{AgentStateUpdate, Content, ToolCall, ToolResult},
    node,
};
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::time::sleep;

/// The replies of the model, in order.
struct ScriptedModel {
    replies: Mutex<VecDeque<Message>>,
}

impl ScriptedModel {
    fn new(replies: impl IntoIterator<Item = Message>) -> Self {
        let replies = Mutex::new(replies.into_iter().collect());
        Self { replies }
    }

    /// Returns the next reply. Like a real model, it is asynchronous and takes the conversation.
    async fn reply(&self, _conversation: &[Message]) -> Option<Message> {
        sleep(Duration::from_millis(50)).await;
        let mut replies = self.replies.lock().unwrap_or_else(PoisonError::into_inner);
        replies.pop_front()
    }
}

struct Services {
    model: ScriptedModel,
}

impl Provide<ScriptedModel> for Services {
    fn provide(&self) -> &ScriptedModel {
        &self.model
    }
}

#[derive(Route)]
enum Step {
    Tools,
    Done,
}

#[node(MODEL)]
async fn ask_model(state: &mut AgentState, #[inject] model: &ScriptedModel) -> Result<Step, NodeError> {
    let reply = model.reply(&state.context).await.ok_or("the script is over")?;
    let wants_tools = reply.tool_calls().next().is_some();
    state.context.push(reply);
    Ok(if wants_tools { Step::Tools } else { Step::Done })
}

/// Runs all calls of one reply concurrently. A failed tool does not fail the node: the model receives the error.
#[node(TOOLS)]
async fn call_tools(state: &AgentState) -> AgentStateUpdate {
    let calls = state.last_message().into_iter().flat_map(Message::tool_calls);
    let results = join_all(calls.map(async |call| match call_tool(call).await {
        Ok(output) => Message::tool_result(&call.id, output),
        Err(error) => Message::tool_error(&call.id, error),
    }));
    AgentState::update().context(results.await)
}

async fn call_tool(call: &ToolCall) -> Result<Value, String> {
    match call.name.as_str() {
        "weather" => weather(call.arguments["city"].as_str().unwrap_or_default()).await,
        other => Err(format!("there is no tool `{other}`")),
    }
}

async fn weather(city: &str) -> Result<Value, String> {
    sleep(Duration::from_millis(50)).await;
    match city {
        "Athens" => Ok(json!({ "celsius": 31 })),
        "Oslo" => Ok(json!({ "celsius": 12 })),
        _ => Err(format!("there is no weather station in {city}")),
    }
}

fn print(message: &Message) {
    let mut speaker = message.role.to_string();
    for content in &message.content {
        let text = match content {
            Content::Text { text } => text.clone(),
            Content::ToolCall(ToolCall { name, arguments, .. }) => format!("{name}({arguments})"),
            Content::ToolResult(ToolResult { output, is_error: true, .. }) => format!("failed: {output}"),
            Content::ToolResult(ToolResult { output, .. }) => output.to_string(),
            _ => continue,
        };
        println!("{speaker:<10} {text}");
        speaker.clear();
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let weather_in = |id, city| ToolCall::new(id, "weather", json!({ "city": city }));
    let model = ScriptedModel::new([
        Message::assistant("Let me look.")
            .with_content(weather_in("call-1", "Oslo"))
            .with_content(weather_in("call-2", "Atlantis")),
        Message::assistant("Atlantis has sunk. Perhaps Athens was meant?").with_content(weather_in("call-3", "Athens")),
        Message::assistant("Athens is 19 degrees warmer than Oslo; of Atlantis nothing is known."),
    ]);

    let app = graph! {
        MODEL -> match {
            Step::Tools => TOOLS -> MODEL,
            Step::Done => END,
        };
        compile { services: Services { model }, recursion_limit: 10 }
    };

    let question = AgentState::from_user("Is it warmer in Oslo or in Atlantis?");
    let state = app.invoke(question, RunConfig::new()).await?;
    state.context.iter().for_each(print);
    Ok(())
}

//! A support chat that remembers: its threads are in a SQLite file, and a second app, such as the service after its next
//! start, goes on with them.
//!
//! It shows a store, threads that do not share their states, a history, and a fork that answers another question.
//!
//! ```console
//! $ cargo run -p agentflow-examples --example 19_support_chat
//! the first app
//!   ada: My order is number 7.
//!        I have noted it.
//!   bob: Where is my order?
//!        Which number does it have?
//! the second app
//!   ada: Where is my order?
//!        Order 7 is on its way. (I remember 2 messages.)
//!   bob: Thank you, bye.
//!        I have noted it.
//! ada's thread: 4 messages, 6 checkpoints
//! a fork at her first answer: Order 7 can be cancelled. (I remember 2 messages.)
//! ada's thread still has 4 messages
//! ```

use std::path::Path;

use agentflow::{
    AgentState, CompiledGraph, Message, NodeError, RunConfig, graph, node,
    thread::{HistoryFilter, Input, Source, ThreadError},
};
use agentflow_sqlite::SqliteStore;

/// Stands in for a model, which reads the whole conversation.
#[node]
async fn reply(state: &mut AgentState) -> Result<(), NodeError> {
    let question = state.last_message().ok_or("nothing was asked")?.text();
    let earlier = state.context.len() - 1;
    let mentions = state.context.iter().map(Message::text).collect::<String>();
    let order = mentions.split("number ").nth(1).and_then(|rest| rest.split('.').next());
    let text = match (question.as_str(), order) {
        ("Where is my order?", None) => "Which number does it have?".to_owned(),
        ("Where is my order?", Some(order)) => format!("Order {order} is on its way. (I remember {earlier} messages.)"),
        ("Cancel it.", Some(order)) => format!("Order {order} can be cancelled. (I remember {earlier} messages.)"),
        _ => "I have noted it.".to_owned(),
    };
    state.context.push(Message::assistant(text));
    Ok(())
}

/// Opens the file, which a service does once, at its start.
fn open(path: &Path) -> anyhow::Result<CompiledGraph<AgentState>> {
    Ok(graph! { name = "support"; reply -> END; compile { store: SqliteStore::open(path)? } })
}

/// Runs the graph on a customer's thread, and prints what it says.
async fn say(app: &CompiledGraph<AgentState>, customer: &str, text: &str) -> Result<(), ThreadError> {
    let update = AgentState::update().context([Message::user(text)]);
    let outcome = app.thread(customer).invoke(update, RunConfig::new()).await?;
    let answer = outcome.done().and_then(|state| state.last_message().map(Message::text)).unwrap_or_default();
    println!("  {customer}: {text}\n       {answer}");
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("support.db");

    println!("the first app");
    let app = open(&path)?;
    say(&app, "ada", "My order is number 7.").await?;
    say(&app, "bob", "Where is my order?").await?;
    app.aclose().await;

    println!("the second app");
    let app = open(&path)?;
    say(&app, "ada", "Where is my order?").await?;
    say(&app, "bob", "Thank you, bye.").await?;

    let ada = app.thread("ada");
    let history = ada.history(HistoryFilter::default()).await?;
    println!("ada's thread: {} messages, {} checkpoints", history[0].values.context.len(), history.len());

    // The history has the newest first. Her first answer is in the oldest checkpoint at an end.
    let first = history.iter().rev().find(|state| state.source == Source::Loop && state.next.is_empty());
    let first = first.map(|state| state.checkpoint).ok_or_else(|| anyhow::anyhow!("she has an answer"))?;
    let fork = ada.fork("ada, asking for something else").await?;
    let update = AgentState::update().context([Message::user("Cancel it.")]);
    let outcome = fork.invoke(Input::update(update).at(first), RunConfig::new()).await?;
    let answer = outcome.done().and_then(|state| state.last_message().map(Message::text)).unwrap_or_default();
    println!("a fork at her first answer: {answer}");
    let messages = ada.state().await?.map_or(0, |state| state.values.context.len());
    println!("ada's thread still has {messages} messages");
    app.aclose().await;
    Ok(())
}

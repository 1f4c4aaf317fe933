//! The live events of a run: progress, the tokens of a model, and the final state. Then the same events as an SSE
//! endpoint sends them.
//!
//! ```console
//! $ cargo run -p agentflow-examples --example 08_streaming
//! -- SEARCH
//! progress: 50 %
//! progress: 100 %
//! -- ANSWER
//! They sleep by day, in hollow trees.
//! user       Where do owls sleep?
//! system     Source: owls sleep by day, in hollow trees.
//! assistant  They sleep by day, in hollow trees.
//! -- as server-sent events
//! id: 0
//! data: {"sequence":0,"time":1795359543056,"run":"01a203c4-8f10-7789-8ee8-652367de0593","type":"run_started","graph":"owls"}
//!
//! id: 1
//! data: {"sequence":1,"time":1795359543056,"run":"01a203c4-8f10-7789-8ee8-652367de0593","type":"node_started","node":"SEARCH","attempt":1}
//!
//! id: 2
//! data: {"sequence":2,"time":1795359543157,"run":"01a203c4-8f10-7789-8ee8-652367de0593","type":"custom","node":"SEARCH","name":"progress","data":50}
//! ```

use std::{
    io::{Write, stdout},
    time::Duration,
};

use agentflow::{
    AgentState, EventWriter, Message, RunConfig, graph, node,
    run::{Event, EventKind},
};
use futures::{StreamExt, TryStreamExt};
use tokio::time::sleep;

#[node(SEARCH)]
async fn search(state: &mut AgentState, events: &EventWriter) {
    for percent in [50, 100] {
        sleep(Duration::from_millis(100)).await;
        events.emit("progress", percent).await;
    }
    state.context.push(Message::system("Source: owls sleep by day, in hollow trees."));
}

/// Emits each token at once, and adds the complete message to the state.
#[node(ANSWER)]
async fn answer(state: &mut AgentState, events: &EventWriter) {
    let mut text = String::new();
    for token in ["They ", "sleep ", "by ", "day, ", "in ", "hollow ", "trees."] {
        sleep(Duration::from_millis(60)).await;
        events.emit("token", token).await;
        text += token;
    }
    state.context.push(Message::assistant(text));
}

/// Formats a server-sent event. A client that lost its connection sends the id of the last event that it received.
fn sse(event: &Event) -> serde_json::Result<String> {
    let data = serde_json::to_string(event)?;
    Ok(format!("id: {}\ndata: {data}\n\n", event.sequence))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let app = graph! { name = "owls"; SEARCH -> ANSWER -> END };
    let question = AgentState::from_user("Where do owls sleep?");

    let mut run = app.stream(question.clone(), RunConfig::new());
    while let Some(event) = run.next().await {
        match event.kind {
            EventKind::NodeStarted { node, .. } => println!("-- {node}"),
            EventKind::Custom { name, data, .. } if name == "token" => {
                print!("{}", data.as_str().unwrap_or_default());
                stdout().flush()?;
            }
            EventKind::Custom { name, data, .. } => println!("{name}: {data} %"),
            EventKind::RunEnded { .. } => println!(),
            _ => {}
        }
    }
    for message in run.finish().await?.context {
        println!("{:<10} {}", message.role, message.text());
    }

    // The reader stops early: `take` drops the stream, which cancels the run.
    println!("-- as server-sent events");
    let events = app.stream(question, RunConfig::new());
    let sent: Vec<_> = events.map(|event| sse(&event)).take(3).try_collect().await?;
    print!("{}", sent.concat());
    Ok(())
}

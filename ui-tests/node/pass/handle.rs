//! The handle: its name, visibility and documentation. The function can still be called.
#![deny(warnings, missing_docs)]

use agentflow::{AgentState, CompileOptions, END, Message, NodeError, RunConfig, StateGraph, graph, node};

/// Nodes of other modules.
pub mod nodes {
    use super::{AgentState, Message, node};

    /// Says hello.
    #[node]
    pub async fn greet(state: &mut AgentState) {
        state.context.push(Message::assistant("hello"));
    }

    /// Says goodbye.
    #[node(PART)]
    #[must_use = "it may fail"]
    pub(crate) async fn part(state: &mut AgentState) -> Result<(), String> {
        state.context.push(Message::assistant("goodbye"));
        Ok(())
    }

    /// Not for others.
    #[node]
    #[deprecated]
    #[allow(dead_code)]
    async fn hidden() {}
}

// One `use` imports the function and the handle.
use nodes::{PART, greet, part};

#[cfg(any())]
#[node]
async fn not_there(state: &mut NotThere) -> NotThere {}

#[node]
#[cfg(not(any()))]
async fn there() {}

macro_rules! say {
    ($($name:ident: $text:literal),*) => {$(
        #[node]
        async fn $name(state: &mut AgentState) -> Result<(), NodeError> {
            state.context.push(Message::assistant($text));
            Ok(())
        }
    )*};
}
say!(one: "1", two: "2");

#[tokio::main(flavor = "current_thread")]
async fn main() {
    #[node]
    async fn within_a_function(state: &mut AgentState) {
        state.context.push(Message::assistant("within"));
    }

    let app = graph! { greet -> there -> one -> two -> within_a_function -> PART -> END };
    let state = app.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    let texts: Vec<_> = state.context.iter().map(Message::text).collect();
    assert_eq!(texts, ["hello", "1", "2", "within", "goodbye"]);

    // Called without a graph.
    let mut state = AgentState::default();
    greet(&mut state).await;
    part(&mut state).await.unwrap();
    assert_eq!(state.context.len(), 2);

    // Handed to a builder.
    let mut graph = StateGraph::new();
    graph.add_node("greet", greet {}).add_node("part", PART);
    graph.set_entry_point("greet").add_edge("greet", "part").add_edge("part", END);
    graph.compile(CompileOptions::new()).unwrap();
    let (handle, renamed) = (greet {}, PART);
    let (copied, _) = (handle, renamed);
    assert_eq!(format!("{copied:?} {handle:?} {renamed:?}"), "greet greet PART");
}

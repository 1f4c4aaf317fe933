//! Graphs with a store, in every form.
#![deny(warnings)]
#![allow(dead_code)]

use std::sync::Arc;

use agentflow::{
    AgentState, CompileOptions, CompiledGraph, END, NodeError, Provide, Route, State, StateGraph, graph,
    graph::{Node, NodeContext},
    node,
    store::Store,
};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, State)]
struct Mail {
    to: String,
    #[state(append)]
    topics: Vec<String>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Call(u8);

#[derive(Route)]
enum Step {
    Tools(Vec<Call>),
    Tool(Call),
    Done,
}

struct Smtp;

#[derive(Provide)]
struct Services {
    smtp: Smtp,
}

#[node]
async fn model(_state: &mut Mail, #[inject] _smtp: &Smtp) -> Step {
    Step::Done
}

#[node]
async fn tools(_state: &mut Mail, input: Vec<Call>) {
    drop(input);
}

#[node]
async fn plain(_state: &mut Mail) {}

#[node]
async fn reads(_state: &Mail) {}

#[node]
async fn research(_state: &Mail, input: &String) -> MailUpdate {
    Mail::update().topics([input.as_str()])
}

fn topics(state: &Mail) -> impl Iterator<Item = String> {
    state.topics.iter().cloned()
}

struct Tool;

impl Node<Mail, Services, Call> for Tool {
    type Output = ();

    async fn run(&self, _: NodeContext<'_, Mail, Services, Call>) -> Result<(), NodeError> {
        Ok(())
    }
}

fn with_everything(store: impl Store, inner: CompiledGraph<Mail>) -> CompiledGraph<Mail, Services> {
    graph! {
        name = "mail";
        node TOOL = (Tool);
        node INNER = (inner);
        graph PART { plain -> { reads, each topics { research } } -> END }
        START -> PART -> INNER -> { reads, plain2 } -> each topics { research } -> model -> match {
            Step::Tools(calls) => tools(calls) -> END,
            Step::Tool(call) => TOOL(call) -> END,
            Step::Done => END,
        };
        node plain2 = reads;
        compile { store: store, services: Services { smtp: Smtp }, on_commit: |_| {} }
    }
}

fn before_the_services(store: Arc<dyn Store>) -> CompiledGraph<AgentState, u8> {
    #[node]
    async fn work(_state: &mut AgentState) {}
    graph! { name = "work"; work -> END; compile { services: 1_u8, store: store } }
}

fn with_a_state(store: Arc<dyn Store>) -> CompiledGraph<AgentState> {
    graph! { type State = AgentState; name = "work"; node WORK = work(); WORK -> END; compile { store: store } }
}

fn work() -> CompiledGraph<AgentState> {
    #[node]
    async fn work(_state: &mut AgentState) {}
    graph! { work -> END }
}

fn in_the_builder(store: Arc<dyn Store>) {
    let mut graph = StateGraph::new();
    graph.set_name("mail");
    graph.add_node("PLAIN", plain {});
    graph.set_entry_point("PLAIN");
    graph.add_edge("PLAIN", END);
    let _ = graph.compile(CompileOptions::new().store(store));
}

/// Without a store nothing needs serde.
fn without_a_store() {
    #[derive(Clone, State)]
    struct Socket {
        #[state(append)]
        open: Vec<Handle>,
    }

    #[derive(Clone)]
    struct Handle;

    #[derive(Route)]
    enum Next {
        Close(Handle),
        End,
    }

    #[node]
    async fn poll(_state: &mut Socket) -> Next {
        Next::End
    }

    #[node]
    async fn close(_state: &mut Socket, input: &Handle) {
        let _ = input;
    }

    let _ = graph! { poll -> match { Next::Close(handle) => close(handle) -> END, Next::End => END } };
}

fn main() {}

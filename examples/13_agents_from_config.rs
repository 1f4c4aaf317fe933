//! Agents that are described in a configuration file: a `StateGraph` for each, and all of its mistakes at once.
//!
//! The model is a stub that repeats its prompt, so that no key is needed.
//!
//! ```console
//! $ cargo run -p agentflow-examples --example 13_agents_from_config
//! support: I want a refund
//!   assistant  refund policy: 30 days
//!   assistant  be polite
//! support: Where are you?
//!   assistant  be polite
//! the configuration of `broken` has 3 mistakes:
//!   two nodes are named `ANSWER`
//!   duplicate edge `ANSWER -> END`
//!   there is no node `ANSWR`; did you mean `ANSWER`?
//! ```

use std::collections::{BTreeMap, HashMap};

use agentflow::{
    AgentState, CompileOptions, CompiledGraph, END, Message, NodeError, NodeOptions, RunConfig, StateGraph,
    graph::{BuildError, EdgeTarget, Node, NodeContext},
};
use serde::Deserialize;

const CONFIG: &str = r#"{
    "support": {
        "entry": "TRIAGE",
        "recursion_limit": 10,
        "nodes": [
            { "name": "TRIAGE", "kind": "keyword", "routes": { "refund": "REFUND", "": "ANSWER" } },
            { "name": "REFUND", "kind": "prompt", "prompt": "refund policy: 30 days", "next": "ANSWER", "retry": 2 },
            { "name": "ANSWER", "kind": "prompt", "prompt": "be polite", "next": "END" }
        ]
    },
    "broken": {
        "entry": "TRIAGE",
        "recursion_limit": 10,
        "nodes": [
            { "name": "TRIAGE", "kind": "keyword", "routes": { "": "ANSWR" } },
            { "name": "ANSWER", "kind": "prompt", "prompt": "be polite", "next": "END" },
            { "name": "ANSWER", "kind": "prompt", "prompt": "be brief", "next": "END" },
            { "name": "LOOP", "kind": "prompt", "prompt": "again", "next": "ANSWER" }
        ]
    }
}"#;

#[derive(Deserialize)]
struct AgentConfig {
    entry: String,
    recursion_limit: usize,
    nodes: Vec<NodeConfig>,
}

#[derive(Deserialize)]
struct NodeConfig {
    name: String,
    #[serde(default)]
    retry: u32,
    #[serde(flatten)]
    kind: Kind,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Kind {
    Prompt { prompt: String, next: String },
    Keyword { routes: BTreeMap<String, String> },
}

/// The service that all agents share. A real client takes its place.
#[derive(Clone)]
struct Model;

impl Model {
    async fn reply(&self, prompt: &str) -> Result<Message, NodeError> {
        tokio::task::yield_now().await;
        Ok(Message::assistant(prompt))
    }
}

struct Prompt(String);

impl Node<AgentState, Model> for Prompt {
    type Output = ();

    async fn run(&self, cx: NodeContext<'_, AgentState, Model>) -> Result<(), NodeError> {
        let reply = cx.services.reply(&self.0).await?;
        cx.state.context.push(reply);
        Ok(())
    }
}

/// Routes by the longest keyword that the last message contains; the empty one matches every message.
struct Keyword(Vec<String>);

impl Node<AgentState, Model> for Keyword {
    type Output = String;

    async fn run(&self, cx: NodeContext<'_, AgentState, Model>) -> Result<String, NodeError> {
        let text = cx.state.last_message().map(Message::text).unwrap_or_default();
        let found = self.0.iter().filter(|keyword| text.contains(keyword.as_str())).max_by_key(|keyword| keyword.len());
        found.cloned().ok_or_else(|| "no keyword matches".into())
    }
}

/// `END` is a constant and not a node's name, so a configuration that writes it as text needs this.
fn target(name: String) -> EdgeTarget {
    if name == "END" { END.into() } else { name.into() }
}

fn build(name: &str, config: AgentConfig) -> Result<CompiledGraph<AgentState, Model>, BuildError> {
    let mut graph = StateGraph::new();
    graph.set_name(name).set_entry_point(config.entry);
    for node in config.nodes {
        let name = node.name.as_str();
        match node.kind {
            Kind::Prompt { prompt, next } => graph.add_node(name, Prompt(prompt)).add_edge(name, target(next)),
            Kind::Keyword { routes } => {
                let keywords = Keyword(routes.keys().cloned().collect());
                let arms = routes.into_iter().map(|(keyword, next)| (keyword, target(next)));
                graph.add_routing_node(name, keywords, arms)
            }
        };
        if node.retry > 0 {
            graph.set_node_options(name, NodeOptions::new().retry(node.retry));
        }
    }
    graph.compile(CompileOptions::new().recursion_limit(config.recursion_limit).services(Model))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let configs: BTreeMap<String, AgentConfig> = serde_json::from_str(CONFIG)?;
    let mut agents = HashMap::new();
    let mut mistakes = Vec::new();
    for (name, config) in configs {
        match build(&name, config) {
            Ok(app) => _ = agents.insert(name, app),
            Err(error) => mistakes.push((name, error)),
        }
    }

    for question in ["I want a refund", "Where are you?"] {
        println!("support: {question}");
        let state = agents["support"].invoke(AgentState::from_user(question), RunConfig::new()).await?;
        for message in &state.context[1..] {
            println!("  {}  {}", message.role, message.text());
        }
    }
    for (name, error) in mistakes {
        println!("the configuration of `{name}` has {} mistakes:", error.problems().len());
        // A problem also has the call that made it, which is the same for all nodes of a configuration.
        for problem in error.problems() {
            println!("  {}", problem.kind);
        }
    }
    for (_, app) in agents {
        app.aclose().await;
    }
    Ok(())
}

//! Prints pictures of graphs with hostile labels, one JSON object a line, for the real parsers to read back:
//! `.ci/pictures` runs it. The labels are the same in every run.

use std::fmt;

use agentflow::{AgentState, CompileOptions, CompiledGraph, END, NodeOptions, StateGraph, node};
use serde_json::json;

#[node]
async fn step(_state: &mut AgentState) {}

/// Labels that a parser once took for markup.
const HOSTILE: [&str; 29] = [
    "",
    " ",
    "direction LR",
    "a direction  TB b",
    "%%{init: {}}%%",
    "`code`",
    "`**bold** _it_`",
    "style::Kind(\"x\")",
    "style A fill:#f00",
    "Name(\"a\\nb\")",
    "a\r\nb\rc\nd",
    "&lt;b&gt; &amp; &#35;",
    "<b>x</b><br/>",
    "#35; #quot; #nbsp;",
    "end",
    "subgraph x",
    "click A callback",
    "a -->|b| c",
    "A[\"x\"] --> B((y))",
    "::: %% ; { } ( ) [ ] | \\ / $$x^2$$",
    "\u{0}\u{1}\u{1f}\u{7f}\u{fffe}\u{ffff}",
    "日本語 ñ 🦉 \u{202e}rtl",
    "fa:fa-car",
    "@{ shape: rect }",
    "1. list",
    "- item",
    "call_model (a_b_c) -x-",
    "__b__ -- (c)",
    "--x",
];

/// Returns labels of random characters and fragments, from a linear congruential generator.
fn random_labels(count: usize) -> Vec<String> {
    const PARTS: [&str; 28] = [
        "a",
        "B",
        "7",
        " ",
        "\"",
        "#",
        "&",
        ";",
        "<",
        ">",
        "`",
        "%%",
        "{",
        "}",
        "[",
        "|",
        "\\",
        "\n",
        "direction ",
        "LR",
        "style",
        ":",
        "_",
        "-",
        "(",
        ")",
        "end",
        "é",
    ];
    let mut seed = 7_u64;
    let mut next = |bound: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap_or_default() % bound
    };
    (0..count).map(|_| (0..=next(8)).map(|_| PARTS[next(PARTS.len())]).collect()).collect()
}

/// A route that a picture labels with the text.
#[derive(Clone, PartialEq)]
struct Named(String);

impl fmt::Debug for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Makes a graph with the label as its name, at a node, at an edge, and as the title of a graph inside it that leads to itself.
fn app(label: &str) -> CompiledGraph<AgentState> {
    let mut inner = StateGraph::new();
    inner.add_node("B", step {}).add_edge("B", END).set_entry_point("B");
    let inner = inner.compile(CompileOptions::new()).expect("the inner graph is valid");
    let mut graph = StateGraph::<AgentState>::new();
    graph.set_name(label);
    graph.add_node("A", step {}).set_node_options("A", NodeOptions::new().label(label));
    graph.add_node("SUB", inner).set_node_options("SUB", NodeOptions::new().label(label));
    graph.add_edge("A", "SUB").set_entry_point("A");
    let (again, done) = (Named(label.to_owned()), Named("done".to_owned()));
    let arms = [(again.clone(), "SUB".into()), (done, END.into())];
    graph.add_route("SUB", move |_: &AgentState| again.clone(), arms);
    graph.compile(CompileOptions::new()).expect("the graph is valid")
}

fn main() {
    for label in HOSTILE.iter().map(|label| (*label).to_owned()).chain(random_labels(150)) {
        let app = app(&label);
        println!("{}", json!({ "label": label, "mermaid": app.mermaid(), "dot": app.dot() }));
    }
}

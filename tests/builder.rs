//! Mistakes in a `StateGraph`: `compile` reports all of them at once, each with the call that made it.

use agentflow::{
    AgentState, CompileOptions, CompiledGraph, END, Message, RunConfig, START, StateGraph, graph,
    graph::{BuildError, BuildProblemKind},
    node,
};

#[node]
async fn speak(state: &mut AgentState) {
    state.context.push(Message::assistant("word"));
}

/// Builds a graph with these nodes and enters it at the first one.
fn nodes(names: &[&str]) -> StateGraph<AgentState> {
    let mut graph = StateGraph::new();
    for name in names {
        graph.add_node(*name, speak {});
    }
    if let Some(entry) = names.first() {
        graph.set_entry_point(*entry);
    }
    graph
}

fn compile(graph: StateGraph<AgentState>) -> Result<CompiledGraph<AgentState>, BuildError> {
    graph.compile(CompileOptions::new())
}

/// Returns the text of each problem of the graph.
fn problems(graph: StateGraph<AgentState>) -> Vec<String> {
    let error = compile(graph).unwrap_err();
    error.problems().iter().map(|problem| problem.kind.to_string()).collect()
}

#[test]
fn a_graph_needs_a_node() {
    let graph = StateGraph::new();
    assert_eq!(problems(graph), ["a graph needs at least one node: `add_node(\"MAIN\", main_node {})`"]);
}

#[test]
fn an_empty_graph_reports_only_that_it_has_no_node() {
    let mut graph = StateGraph::new();
    graph.set_entry_point("A").add_edge("A", "B");
    assert_eq!(problems(graph).len(), 1);
}

#[test]
fn node_names_are_unique() {
    let mut graph = nodes(&["A", "B", "A"]);
    graph.add_edge("A", "B").add_edge("B", END);
    assert_eq!(problems(graph), ["two nodes are named `A`"]);
}

#[test]
fn a_node_name_is_not_empty_and_contains_no_slash() {
    let mut graph = nodes(&["", "RESEARCH/PLAN"]);
    graph.add_edge("", "RESEARCH/PLAN").add_edge("RESEARCH/PLAN", END);
    let rule = "is not a valid node name: a name has at least one character and no `/`, which separates a subgraph from its nodes";
    assert_eq!(problems(graph), [format!("`` {rule}"), format!("`RESEARCH/PLAN` {rule}")]);
}

#[test]
fn an_edge_connects_existing_nodes() {
    let mut graph = nodes(&["research", "answer"]);
    graph.add_edge("reserch", "answer").add_edge("ANSWER", "publish");
    assert_eq!(
        problems(graph),
        [
            "there is no node `reserch`; did you mean `research`?",
            "there is no node `ANSWER`; did you mean `answer`?",
            "there is no node `publish`",
        ]
    );
}

#[test]
fn the_entry_point_is_an_existing_node() {
    let mut graph = StateGraph::new();
    graph.add_node("MAIN", speak {}).add_edge("MAIN", END).set_entry_point("MIAN");
    assert_eq!(problems(graph), ["there is no node `MIAN`; did you mean `MAIN`?"]);
}

#[test]
fn a_suggestion_is_machine_readable() {
    let mut graph = nodes(&["MAIN"]);
    graph.add_edge("MAIN", "MAIM");
    let error = compile(graph).unwrap_err();
    let BuildProblemKind::UnknownNode { name, suggestion } = &error.problems()[0].kind else {
        panic!("{error}");
    };
    assert_eq!((&**name, suggestion.as_deref()), ("MAIM", Some("MAIN")));
}

#[test]
fn a_graph_needs_an_entry_point() {
    let mut graph = StateGraph::new();
    graph.add_node("A", speak {}).add_edge("A", END);
    assert_eq!(problems(graph), ["the graph has no entry point; set one with `set_entry_point(\"A\")`"]);
}

#[test]
fn end_is_no_source_of_an_edge() {
    let mut graph = StateGraph::new();
    graph.add_node("A", speak {}).add_edge(START, END).add_edge("A", END);
    assert_eq!(problems(graph), ["the graph has no entry point; set one with `set_entry_point(\"A\")`"]);
}

#[test]
fn a_graph_has_one_entry_point() {
    let mut graph = nodes(&["A", "B"]);
    graph.add_edge("A", "B").add_edge("B", END).add_edge(START, "B");
    assert_eq!(problems(graph), ["the graph starts at `A` already; it cannot start at `B` as well"]);

    for end_first in [false, true] {
        let mut graph = StateGraph::new();
        if end_first {
            graph.add_edge(START, END);
        }
        graph.add_node("A", speak {}).set_entry_point("A").add_edge("A", END);
        if !end_first {
            graph.add_edge(START, END);
        }
        assert_eq!(problems(graph), ["the graph starts at `A` already; it cannot start at `END` as well"]);
    }
}

#[test]
fn a_duplicate_edge_is_rejected() {
    let mut graph = nodes(&["A", "B"]);
    graph.add_edge("A", "B").add_edge("A", "B").add_edge("B", END).add_edge("B", END);
    assert_eq!(problems(graph), ["duplicate edge `A -> B`", "duplicate edge `B -> END`"]);
}

#[test]
fn a_node_has_one_outgoing_edge() {
    let mut graph = nodes(&["A", "B"]);
    graph.add_edge("A", "B").add_edge("A", END).add_edge("B", END);
    assert_eq!(
        problems(graph),
        ["`A` has two outgoing edges, `B` and `END`; a node has one: make them a group or a decision"]
    );
}

#[test]
fn every_node_has_an_outgoing_edge() {
    let mut graph = nodes(&["A", "B"]);
    graph.add_edge("A", "B");
    assert_eq!(problems(graph), ["node `B` has no outgoing edge; end the graph with `add_edge(\"B\", END)`"]);
}

#[test]
fn every_node_is_reachable() {
    let mut graph = nodes(&["A", "B", "C"]);
    graph.add_edge("A", END).add_edge("B", "C").add_edge("C", END);
    assert_eq!(
        problems(graph),
        ["node `B` can never run: no path leads to it from `A`"],
        "`C` is not reported, because `B` leads to it"
    );
}

#[test]
fn every_loop_has_an_exit() {
    let mut graph = nodes(&["A", "B", "C"]);
    graph.add_edge("A", "B").add_edge("B", "C").add_edge("C", "B");
    assert_eq!(problems(graph), ["nodes `B`, `C` loop forever: no path leads from them to `END`"]);

    let mut graph = nodes(&["A"]);
    graph.add_edge("A", "A");
    assert_eq!(problems(graph), ["node `A` loops forever: no path leads from it to `END`"]);
}

#[test]
fn problems_are_listed_in_the_order_of_the_calls() {
    let mut graph = StateGraph::new();
    graph.add_node("A", speak {});
    graph.add_node("A", speak {});
    graph.add_node("B", speak {});
    graph.add_edge("A", "B");
    graph.add_edge("A", END);
    graph.add_edge("B", "NOWHERE");
    graph.set_entry_point("A");
    graph.set_entry_point("B");
    let error = compile(graph).unwrap_err();
    let text = error.to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "the graph cannot be compiled, 4 problems:");
    for (line, begins) in lines[1..].iter().zip([
        "  two nodes are named `A` (",
        "  `A` has two outgoing edges, `B` and `END`; a node has one: make them a group or a decision (",
        "  there is no node `NOWHERE` (",
        "  the graph starts at `A` already; it cannot start at `B` as well (",
    ]) {
        assert!(line.starts_with(begins), "{text}");
    }
}

#[test]
fn a_problem_names_the_call_that_made_it() {
    let mut graph = nodes(&["MAIN"]);
    let line = line!() + 1;
    graph.add_edge("MAIN", "NOWHERE");
    let error = compile(graph).unwrap_err();
    let location = error.problems()[0].location;
    assert_eq!((location.file(), location.line()), (file!(), line));
    assert!(error.to_string().ends_with(&format!("({}:{line})", file!())), "{error}");
}

#[test]
fn each_call_of_a_chain_has_its_own_line() {
    let mut graph = nodes(&["MAIN"]);
    let line = line!() + 2;
    #[rustfmt::skip]
    graph.add_edge("MAIN", "a node that is not there")
        .add_edge("another that is not there", END);
    let error = compile(graph).unwrap_err();
    let lines: Vec<_> = error.problems().iter().map(|problem| problem.location.line()).collect();
    assert_eq!(lines, [line, line + 1]);
}

#[test]
fn a_missing_call_is_reported_at_the_node_or_at_the_graphs_creation() {
    let line = line!() + 1;
    let mut graph = StateGraph::new();
    graph.add_node("A", speak {}).add_edge("A", END);
    assert_eq!(compile(graph).unwrap_err().problems()[0].location.line(), line);

    let mut graph = nodes(&["A"]);
    let line = line!() + 1;
    graph.add_node("LONELY", speak {});
    graph.add_edge("A", END).add_edge("LONELY", END);
    assert_eq!(compile(graph).unwrap_err().problems()[0].location.line(), line);
}

#[tokio::test]
async fn the_order_of_the_calls_does_not_matter() {
    let mut graph = StateGraph::new();
    graph.add_edge("B", END);
    graph.add_edge(START, "A");
    graph.add_node("B", speak {});
    graph.add_edge("A", "B");
    graph.add_node("A", speak {});
    let state = compile(graph).unwrap().invoke(AgentState::default(), RunConfig::new()).await;
    assert_eq!(state.unwrap().context.len(), 2);
}

#[tokio::test]
async fn names_can_be_made_at_run_time() {
    let mut graph = StateGraph::new();
    graph.set_name("made up");
    for name in ["a", "b"] {
        graph.add_node(format!("node {name}"), speak {});
    }
    graph.set_entry_point(format!("node {}", "a")).add_edge(String::from("node a"), "node b").add_edge("node b", END);
    let app = compile(graph).unwrap();
    assert_eq!(app.name(), "made up");
    app.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
}

/// `graph!` and the builder have the same rules: the builder must not reject a graph that the macro accepts.
#[tokio::test]
async fn the_builder_accepts_every_graph_of_the_macro() {
    macro_rules! graphs {
        ($($length:literal: $graph:expr,)*) => {$(
            let app: CompiledGraph<AgentState> = $graph;
            let state = app.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
            assert_eq!(state.context.len(), $length, "{}", stringify!($graph));
        )*};
    }
    graphs! {
        1: graph! { speak -> END },
        1: graph!(START -> speak -> END),
        1: graph![node MAIN = speak; MAIN -> END;],
        2: graph! { node B = speak; speak -> B; B -> END },
        2: graph! { node B = speak; B -> END; START -> speak; speak -> B },
        3: graph! { node A = speak; node B = (speak {}); A -> B -> speak -> END; name = "three" },
        1: graph! { type State = AgentState; speak -> END; compile { recursion_limit: 1, shutdown_timeout: 200ms } },
        1: graph! { ; node START_HERE = speak; START -> START_HERE; START_HERE -> END; compile {} },
    }
}

mod refused {
    use agentflow::{AgentState, CompileOptions, END, NodeOptions, StateGraph, graph::BuildProblemKind, node};

    #[node]
    async fn step(_state: &mut AgentState) {}

    #[node]
    async fn look(_state: &AgentState) {}

    fn problems(graph: StateGraph<AgentState>) -> Vec<String> {
        let error = graph.compile(CompileOptions::new()).unwrap_err();
        error.problems().iter().map(|problem| problem.kind.to_string()).collect()
    }

    #[test]
    fn names_that_the_macro_refuses_are_refused() {
        for name in ["START", "END", "", " ", "\n", "a\0", "a/b"] {
            let mut graph = StateGraph::new();
            graph.add_node(name, step {}).set_entry_point(name).add_edge(name, END);
            let error = graph.compile(CompileOptions::new()).unwrap_err();
            let kinds: Vec<_> = error.problems().iter().map(|problem| &problem.kind).collect();
            assert!(
                matches!(&kinds[..], [BuildProblemKind::BadName { .. } | BuildProblemKind::ReservedName { .. }]),
                "{name:?}: {kinds:?}"
            );
        }
    }

    #[test]
    fn a_decision_without_arms_counts_as_a_decision() {
        let router = |_: &AgentState| true;
        let mut graph = StateGraph::new();
        graph.add_node("A", step {}).set_entry_point("A");
        graph.add_route("A", router, []).add_route("A", router, [(true, "A".into()), (false, END.into())]);
        let problems_of_two = problems(graph);
        assert_eq!(problems_of_two.len(), 1);
        assert!(problems_of_two[0].starts_with("`A` has two outgoing edges"), "{problems_of_two:?}");

        let mut graph = StateGraph::new();
        graph.add_parallel_node("B", look {}).add_group("G", [["B"]]).add_edge("G", END);
        graph.add_edge(agentflow::START, "G").add_route("B", router, []);
        assert_eq!(problems(graph), ["node `B` has no outgoing edge; end the graph with `add_edge(\"B\", JOIN)`"]);
    }

    #[test]
    fn a_node_is_not_its_own_fallback() {
        let mut graph = StateGraph::new();
        graph.add_node("A", step {}).set_entry_point("A").add_edge("A", END);
        graph.set_node_options("A", NodeOptions::new().on_error("A"));
        assert_eq!(
            problems(graph),
            ["`A` cannot be its own fallback: name another node in `on_error`, or run it again with `retry`"]
        );
    }
}

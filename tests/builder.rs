//! `StateGraph`: what is wrong with a graph, all at once, each with the call that made it.

use agentflow::{
    AgentState, CompileOptions, CompiledGraph, END, Message, RunConfig, START, StateGraph, graph,
    graph::{BuildError, BuildProblemKind},
    node,
};

#[node]
async fn speak(state: &mut AgentState) {
    state.context.push(Message::assistant("word"));
}

/// A graph with these nodes, entered at the first of them.
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

/// What is wrong, each problem in its own words.
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
fn a_graph_needs_a_node_is_all_there_is_to_say_of_edges_between_none() {
    let mut graph = StateGraph::new();
    graph.set_entry_point("A").add_edge("A", "B");
    assert_eq!(problems(graph).len(), 1);
}

#[test]
fn two_nodes_cannot_have_one_name() {
    let mut graph = nodes(&["A", "B", "A"]);
    graph.add_edge("A", "B").add_edge("B", END);
    assert_eq!(problems(graph), ["two nodes are named `A`"]);
}

#[test]
fn a_name_can_be_told_from_nothing_and_from_a_path_into_a_subgraph() {
    let mut graph = nodes(&["", "RESEARCH/PLAN"]);
    graph.add_edge("", "RESEARCH/PLAN").add_edge("RESEARCH/PLAN", END);
    let rule = "is not a valid node name: a name has at least one character and no `/`, which separates a subgraph from its nodes";
    assert_eq!(problems(graph), [format!("`` {rule}"), format!("`RESEARCH/PLAN` {rule}")]);
}

#[test]
fn an_edge_leads_from_and_to_nodes_that_are_there() {
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
fn the_entry_is_a_node_that_is_there() {
    let mut graph = StateGraph::new();
    graph.add_node("MAIN", speak {}).add_edge("MAIN", END).set_entry_point("MIAN");
    assert_eq!(problems(graph), ["there is no node `MIAN`; did you mean `MAIN`?"]);
}

#[test]
fn the_suggestion_can_be_read_by_a_program() {
    let mut graph = nodes(&["MAIN"]);
    graph.add_edge("MAIN", "MAIM");
    let error = compile(graph).unwrap_err();
    let BuildProblemKind::UnknownNode { name, suggestion } = &error.problems()[0].kind else {
        panic!("{error}");
    };
    assert_eq!((&**name, suggestion.as_deref()), ("MAIM", Some("MAIN")));
}

#[test]
fn something_says_where_a_run_begins() {
    let mut graph = StateGraph::new();
    graph.add_node("A", speak {}).add_edge("A", END);
    assert_eq!(problems(graph), ["the graph has no entry point; set one with `set_entry_point(\"A\")`"]);
}

#[test]
fn nothing_begins_at_the_end() {
    let mut graph = StateGraph::new();
    graph.add_node("A", speak {}).add_edge(START, END).add_edge("A", END);
    assert_eq!(problems(graph), ["the graph has no entry point; set one with `set_entry_point(\"A\")`"]);
}

#[test]
fn one_thing_only_says_where_a_run_begins() {
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
fn an_edge_is_added_once() {
    let mut graph = nodes(&["A", "B"]);
    graph.add_edge("A", "B").add_edge("A", "B").add_edge("B", END).add_edge("B", END);
    assert_eq!(problems(graph), ["duplicate edge `A -> B`", "duplicate edge `B -> END`"]);
}

#[test]
fn a_node_has_one_way_on() {
    let mut graph = nodes(&["A", "B"]);
    graph.add_edge("A", "B").add_edge("A", END).add_edge("B", END);
    assert_eq!(
        problems(graph),
        ["`A` has two outgoing edges, `B` and `END`; a node has one: make them a group or a decision"]
    );
}

#[test]
fn every_node_has_a_way_on() {
    let mut graph = nodes(&["A", "B"]);
    graph.add_edge("A", "B");
    assert_eq!(problems(graph), ["node `B` has no outgoing edge; end the graph with `add_edge(\"B\", END)`"]);
}

#[test]
fn a_path_leads_to_every_node() {
    let mut graph = nodes(&["A", "B", "C"]);
    graph.add_edge("A", END).add_edge("B", "C").add_edge("C", END);
    assert_eq!(
        problems(graph),
        ["node `B` can never run: no path leads to it from `A`"],
        "`C` is not reported, because `B` leads to it"
    );
}

#[test]
fn a_loop_has_a_way_out() {
    let mut graph = nodes(&["A", "B", "C"]);
    graph.add_edge("A", "B").add_edge("B", "C").add_edge("C", "B");
    assert_eq!(problems(graph), ["nodes `B`, `C` loop forever: no path leads from them to `END`"]);

    let mut graph = nodes(&["A"]);
    graph.add_edge("A", "A");
    assert_eq!(problems(graph), ["node `A` loops forever: no path leads from it to `END`"]);
}

#[test]
fn all_problems_are_listed_in_the_order_of_the_calls() {
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
fn what_is_missing_is_told_at_the_node_or_where_the_graph_was_made() {
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
async fn the_order_of_the_calls_means_nothing() {
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

/// `graph!` has the builder's rules: what it lets through must not be refused when the program runs.
#[tokio::test]
async fn what_the_macro_accepts_the_builder_accepts() {
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

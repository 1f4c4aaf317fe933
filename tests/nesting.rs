//! Graphs and groups inside each other: what compiles runs on a stack of 2 MiB, the size of tokio's threads.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::Duration,
};

use agentflow::{
    CompileOptions, CompiledGraph, END, RunConfig, StateGraph, graph,
    graph::{BuildError, BuildProblemKind},
};
use tokio::runtime::Builder;

use crate::support::{Say, Trip};

/// The documented bound.
const MAX: usize = 32;

/// Puts a graph of some levels into another one.
type Nest = fn(CompiledGraph<Trip>) -> StateGraph<Trip>;

fn graph_of(name: &'static str, add: impl FnOnce(&mut StateGraph<Trip>)) -> StateGraph<Trip> {
    let mut graph = StateGraph::new();
    add(&mut graph);
    graph.set_entry_point(name).add_edge(name, END);
    graph
}

fn leaf() -> CompiledGraph<Trip> {
    compile(graph_of("A", |graph| _ = graph.add_node("A", Say))).unwrap()
}

fn compile(graph: StateGraph<Trip>) -> Result<CompiledGraph<Trip>, BuildError> {
    graph.compile(CompileOptions::new())
}

fn in_a_graph(inner: CompiledGraph<Trip>) -> StateGraph<Trip> {
    graph_of("A", |graph| _ = graph.add_node("A", inner))
}

fn erased_in_a_graph(inner: CompiledGraph<Trip>) -> StateGraph<Trip> {
    graph_of("A", |graph| _ = graph.add_node("A", inner.erase()))
}

/// Two levels: a graph, and the group that it is in.
fn in_a_group(inner: CompiledGraph<Trip>) -> StateGraph<Trip> {
    let inner = inner.map_state(Trip::clone, |trip: Trip| Trip::update().steps(trip.steps));
    graph_of("G", |graph| {
        graph.add_parallel_node("A", inner).add_group("G", [["A"]]);
    })
}

fn groups(levels: usize) -> StateGraph<Trip> {
    graph_of("G0", |graph| {
        for level in 0..levels {
            graph.add_group(format!("G{level}"), [[format!("G{}", level + 1)]]);
        }
        graph.add_parallel_node(format!("G{levels}"), Say);
    })
}

/// Runs the graph, and draws it, on a thread with a small stack.
fn assert_runs(app: CompiledGraph<Trip>) {
    let run = move || {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let state = runtime.block_on(app.invoke(Trip::default(), RunConfig::new())).unwrap();
        assert_eq!(state.steps.len(), 1);
        assert!(app.mermaid().starts_with("flowchart"));
        assert!(app.dot().starts_with("digraph"));
    };
    thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

fn assert_too_deep(graph: StateGraph<Trip>, node: &str, levels: usize) {
    let error = compile(graph).unwrap_err();
    let [problem] = error.problems() else { panic!("{error}") };
    let too_deep = BuildProblemKind::TooDeep { node: node.into(), levels, max: MAX };
    assert_eq!(problem.kind, too_deep);
}

#[test]
fn graphs_are_nested_up_to_a_bound() {
    for (nest, levels) in [(in_a_graph as Nest, 1), (erased_in_a_graph, 1), (in_a_group, 2)] {
        let mut app = leaf();
        for _ in 0..MAX / levels {
            app = compile(nest(app)).unwrap();
        }
        assert_runs(app.clone());
        assert_too_deep(nest(app), "A", MAX + levels);
    }
}

#[test]
fn groups_are_nested_up_to_a_bound() {
    assert_runs(compile(groups(MAX)).unwrap());
    assert_too_deep(groups(MAX + 1), "G32", MAX + 1);
    // Neither reported one by one, nor followed down.
    assert_too_deep(groups(10_000), "G32", MAX + 1);
}

#[test]
fn graphs_in_nested_groups_count_for_both() {
    let half = || {
        let inner = (0..MAX / 2).fold(leaf(), |app, _| compile(in_a_graph(app)).unwrap());
        inner.map_state(Trip::clone, |trip: Trip| Trip::update().steps(trip.steps))
    };
    let around = |groups: usize| {
        graph_of("G0", |graph| {
            for level in 0..groups {
                graph.add_group(format!("G{level}"), [[format!("G{}", level + 1)]]);
            }
            graph.add_parallel_node(format!("G{groups}"), half());
        })
    };
    assert_runs(compile(around(MAX / 2 - 1)).unwrap());
    assert_too_deep(around(MAX / 2), "G16", MAX + 1);
}

#[test]
fn a_macro_refuses_a_value_that_is_too_deep_by_a_panic() {
    let deepest = (0..MAX).fold(leaf(), |app, _| compile(in_a_graph(app)).unwrap());
    let payload = catch_unwind(AssertUnwindSafe(|| graph! { node DEEP = (deepest); DEEP -> END })).unwrap_err();
    let text = payload.downcast_ref::<String>().unwrap();
    assert!(text.contains("graphs and groups are 33 deep at `DEEP`, and at most 32 fit"), "{text}");
}

#[test]
fn an_option_that_only_the_outermost_graph_obeys_is_a_mistake() {
    let timed = || {
        let inner = graph_of("A", |graph| _ = graph.add_node("A", Say));
        inner.compile(CompileOptions::new().shutdown_timeout(Duration::from_secs(3))).unwrap()
    };
    let mapped = timed().map_state(Trip::clone, |trip: Trip| Trip::update().steps(trip.steps));
    let nodes = [
        graph_of("N", |graph| _ = graph.add_node("N", timed())),
        graph_of("N", |graph| _ = graph.add_node("N", timed().erase())),
        graph_of("N", |graph| _ = graph.add_node("N", mapped)),
    ];
    for graph in nodes {
        let error = compile(graph).unwrap_err();
        let [problem] = error.problems() else { panic!("{error}") };
        assert_eq!(problem.kind, BuildProblemKind::OuterOption { node: "N".into(), option: "shutdown_timeout" });
    }
    let payload = catch_unwind(|| {
        let timed = timed();
        graph! { node N = (timed); N -> END }
    })
    .unwrap_err();
    let text = payload.downcast_ref::<String>().unwrap();
    assert!(text.contains("node `N` was compiled with `shutdown_timeout`"), "{text}");
}

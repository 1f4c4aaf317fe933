//! Decisions, loops, fallbacks and inline graphs in the branches of a group.

use agentflow::{
    CompileOptions, END, JOIN, NodeError, NodeFailure, NodeOptions, Route, StateGraph, graph,
    graph::BuildProblemKind,
    node,
    run::{EventKind, RunErrorKind},
};

use crate::support::{Trip, TripUpdate, committed, events, failure, steps};

#[derive(Debug, Route)]
enum Step {
    Tool(String),
    Done,
}

macro_rules! says {
    ($($name:ident)*) => {$(
        #[node]
        async fn $name(_state: &Trip) -> TripUpdate {
            Trip::update().steps([stringify!($name)])
        }
    )*};
}
says!(a b c d e);

#[node]
async fn model(state: &Trip) -> (TripUpdate, Step) {
    let turn = state.steps.iter().filter(|step| *step == "model").count();
    let step = if turn < 2 { Step::Tool(format!("tool{turn}")) } else { Step::Done };
    (Trip::update().steps(["model"]), step)
}

#[node]
async fn tool(_state: &Trip, input: String) -> TripUpdate {
    Trip::update().steps([input])
}

#[node]
async fn broken(_state: &Trip) -> Result<TripUpdate, NodeError> {
    Err("broken".into())
}

#[node]
async fn recover(_state: &Trip, error: Option<&NodeFailure>) -> TripUpdate {
    Trip::update().steps([format!("recovered from {}", error.unwrap().node)])
}

#[tokio::test]
async fn a_tool_loop_runs_inside_a_branch() {
    let app = graph! {
        START -> { model -> match { Step::Tool(call) => tool(call) -> model, Step::Done => JOIN }, a } -> b2 -> END;
        node b2 = b;
    };
    assert_eq!(steps(&app).await, ["model", "tool0", "model", "tool1", "model", "a", "b"]);
}

#[tokio::test]
async fn a_router_in_a_branch_sees_the_branchs_own_updates() {
    fn next(state: &Trip) -> bool {
        assert!(!state.steps.contains(&"c".to_owned()));
        state.steps.len() < 3
    }
    let app = graph! { START -> { a -> match next { true => a, false => b -> d }, c } -> END };
    assert_eq!(steps(&app).await, ["a", "a", "a", "b", "d", "c"]);
}

#[tokio::test]
async fn an_arm_whose_chain_ends_goes_on_to_the_join() {
    let app = graph! { START -> { a -> match |_: &Trip| 1 { 1 => b, 2 => JOIN, _ => c -> JOIN }, d } -> e -> END };
    assert_eq!(steps(&app).await, ["a", "b", "d", "e"]);
}

#[tokio::test]
async fn a_fallback_in_a_branch_recovers_within_the_branch() {
    let app = graph! {
        node BROKEN = broken { on_error: recover };
        START -> { BROKEN -> a, b } -> c -> END
    };
    assert_eq!(steps(&app).await, ["recovered from BROKEN", "b", "c"]);
    // A fallback that the branch names elsewhere goes on from there.
    let app = graph! {
        node BROKEN = broken { on_error: d };
        START -> { BROKEN -> a -> d -> e, b } -> c -> END
    };
    assert_eq!(steps(&app).await, ["d", "e", "b", "c"]);
}

#[tokio::test]
async fn a_failed_attempt_in_a_branch_leaves_no_update() {
    fn no_way(_: &Trip) -> bool {
        panic!("no way")
    }
    #[node]
    async fn decides(_state: &Trip) -> TripUpdate {
        Trip::update().steps(["lost"])
    }
    let app = graph! {
        node P = decides { on_error: recover };
        START -> { P -> match no_way { true => a, false => b }, c } -> END
    };
    assert_eq!(steps(&app).await, ["recovered from P", "c"]);
}

#[tokio::test]
async fn a_group_has_a_fallback_of_its_own() {
    #[node]
    async fn instead(state: &mut Trip, error: Option<&NodeFailure>) {
        state.steps.push(format!("instead of {}", error.unwrap().node));
    }
    let app =
        graph! { a1 -> { broken, b } { on_error: instead } -> c1 -> END; instead -> c1; node a1 = a; node c1 = c; };
    assert_eq!(steps(&app).await, ["a", "instead of broken", "c"]);
    // So has a group in a branch.
    let app = graph! { START -> { { broken, b } { on_error: recover } -> c, d } -> END };
    assert_eq!(steps(&app).await, ["recovered from broken", "d"]);
}

#[tokio::test]
async fn an_inline_graph_runs_in_a_branch() {
    let app = graph! {
        graph INNER { node A = a; A -> match |state: &Trip| state.steps.len() < 2 { true => A, false => b -> END } }
        START -> { INNER -> c, d } -> END
    };
    assert_eq!(steps(&app).await, ["a", "a", "b", "c", "d"]);
    let names: Vec<_> = events(&app)
        .await
        .into_iter()
        .filter_map(|kind| match kind {
            EventKind::NodeStarted { node, .. } => Some(node),
            _ => None,
        })
        .collect();
    assert_eq!(names, ["INNER", "INNER/A", "INNER/A", "INNER/b", "c", "d"]);
}

#[tokio::test]
async fn the_recursion_limit_counts_along_a_branch_and_names_its_loop() {
    let app = graph! {
        START -> { a -> match |_: &Trip| true { true => b -> a, false => JOIN }, c } -> d -> END;
        compile { recursion_limit: 9 }
    };
    let mut error = failure(&app).await;
    let RunErrorKind::RecursionLimit { limit: 9, nodes, .. } = error.kind() else { panic!("{error}") };
    assert_eq!(nodes.iter().map(|node| &**node).collect::<Vec<_>>(), ["b", "a"]);
    assert!(committed(&mut error).steps.is_empty());
}

#[tokio::test]
async fn the_longest_branch_counts_at_the_join() {
    let graph = |limit| {
        graph! {
            START -> { a -> match |state: &Trip| state.steps.len() < 3 { true => a, false => JOIN }, c } -> d -> END;
            compile { recursion_limit: limit }
        }
    };
    assert_eq!(steps(&graph(4)).await, ["a", "a", "a", "c", "d"]);
    assert!(matches!(failure(&graph(3)).await.kind(), RunErrorKind::RecursionLimit { .. }));
}

#[tokio::test]
async fn the_events_of_a_branchs_decision_name_the_join() {
    let app = graph! { START -> { a -> match |_: &Trip| true { true => JOIN, false => b }, c } -> END };
    let taken = events(&app).await.into_iter().find_map(|kind| match kind {
        EventKind::RouteTaken { node, to, .. } => Some((node, to)),
        _ => None,
    });
    assert_eq!(taken, Some(("a".to_owned(), "JOIN".to_owned())));
}

#[tokio::test]
async fn the_builder_has_decisions_loops_and_fallbacks_in_branches() {
    let mut graph = StateGraph::new();
    graph.add_parallel_node("A", a {}).add_parallel_node("B", b {}).add_parallel_node("C", c {});
    graph.add_parallel_node("BROKEN", broken {}).add_parallel_node("RECOVER", recover {});
    graph.add_group("G", [vec!["A", "B"], vec!["BROKEN", "C"]]).set_entry_point("G").add_edge("G", END);
    graph.add_route("A", |state: &Trip| state.steps.len() < 2, [(true, "A".into()), (false, "B".into())]);
    graph.add_edge("B", JOIN);
    graph.set_node_options("BROKEN", NodeOptions::new().on_error("RECOVER"));
    let app = graph.compile(CompileOptions::new()).unwrap();
    assert_eq!(steps(&app).await, ["a", "a", "b", "recovered from BROKEN"]);
}

#[test]
fn the_builder_keeps_paths_apart() {
    let problems = |wire: fn(&mut StateGraph<Trip>)| {
        let mut graph = StateGraph::new();
        graph.add_parallel_node("A", a {}).add_parallel_node("B", b {}).add_node("C", c {});
        graph.add_group("G", [["A"], ["B"]]).set_entry_point("G").add_edge("G", "C");
        wire(&mut graph);
        let error = graph.compile(CompileOptions::new()).unwrap_err();
        error.problems().iter().map(|problem| problem.kind.clone()).collect::<Vec<_>>()
    };
    let edge_of = |node: &str| BuildProblemKind::EdgeOfBranch { node: node.into(), group: "G".into() };
    assert_eq!(problems(|graph| _ = graph.add_edge("A", "B").add_edge("C", END)), [edge_of("B")]);
    assert_eq!(problems(|graph| _ = graph.add_edge("A", END).add_edge("C", END)), [edge_of("A")]);
    assert_eq!(
        problems(|graph| _ = graph.add_edge("C", JOIN)),
        [BuildProblemKind::JoinOutsideGroup { node: "C".into() }]
    );
    let looping = problems(|graph| _ = graph.add_edge("A", "A").add_edge("C", END));
    assert_eq!(looping, [BuildProblemKind::EndlessLoop { nodes: vec!["A".into()], end: "JOIN" }]);
}

#[tokio::test]
async fn groups_that_recover_by_each_other_reach_the_recursion_limit() {
    let mut graph = StateGraph::new();
    graph.add_parallel_node("B1", broken {}).add_parallel_node("B2", broken {});
    graph.add_group("G1", [["B1"]]).add_group("G2", [["B2"]]).set_entry_point("G1");
    graph.add_edge("G1", END).add_edge("G2", END);
    graph.set_node_options("G1", NodeOptions::new().on_error("G2"));
    graph.set_node_options("G2", NodeOptions::new().on_error("G1"));
    let app = graph.compile(CompileOptions::new().recursion_limit(5)).unwrap();
    assert!(matches!(failure(&app).await.kind(), RunErrorKind::RecursionLimit { limit: 5, .. }));
}

#[tokio::test]
async fn the_fallback_of_a_group_has_the_state_before_the_group() {
    #[node]
    async fn instead(state: &mut Trip) {
        state.steps.push("instead".into());
    }
    // The decision after a group fails when the group is merged already.
    let mut graph = StateGraph::new();
    graph.add_parallel_node("A", a {}).add_node("INSTEAD", instead {}).add_edge("INSTEAD", END);
    graph.add_group("G", [["A"]]).set_entry_point("G").add_route("G", |_: &Trip| 1, [(0, END.into())]);
    graph.set_node_options("G", NodeOptions::new().on_error("INSTEAD"));
    let app = graph.compile(CompileOptions::new()).unwrap();
    assert_eq!(steps(&app).await, ["instead"]);
}

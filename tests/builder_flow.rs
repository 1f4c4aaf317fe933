//! Control flow built with `StateGraph`: its runs equal those of `graph!`, and all mistakes are reported at once.

use agentflow::{
    CompileOptions, END, NodeError, NodeFailure, NodeOptions, RunConfig, START, StateGraph, graph,
    graph::{BuildError, BuildProblem, BuildProblemKind, EdgeTarget, Node, NodeContext},
    node,
};

use crate::support::{Say, Trip, committed, failure, steps};

#[derive(Clone, Debug, PartialEq)]
enum Size {
    Small,
    Large(u32),
}

fn size(state: &Trip) -> Size {
    match state.steps.len() {
        0..3 => Size::Small,
        n => Size::Large(u32::try_from(n).unwrap()),
    }
}

/// Returns the route that `size` computes from the state.
struct Measure;

impl Node<Trip> for Measure {
    type Output = Size;

    async fn run(&self, cx: NodeContext<'_, Trip>) -> Result<Size, NodeError> {
        cx.state.steps.push(cx.node_name().to_owned());
        Ok(size(cx.state))
    }
}

fn problems(graph: StateGraph<Trip>) -> Vec<BuildProblemKind> {
    let error: BuildError = graph.compile(CompileOptions::new()).unwrap_err();
    error.problems().iter().map(|problem| problem.kind.clone()).collect()
}

#[tokio::test]
async fn add_route_is_equivalent_to_match() {
    let mut by_hand = StateGraph::new();
    by_hand.add_node("A", Say).add_node("B", Say);
    by_hand.set_entry_point("A");
    let arms = [(Size::Small, "A".into()), (Size::Large(3), "B".into())];
    by_hand.add_route("A", size, arms);
    by_hand.add_edge("B", END);
    let by_hand = by_hand.compile(CompileOptions::new()).unwrap();
    let drawn = graph! {
        node A = (Say);
        node B = (Say);
        A -> match size { Size::Small => A, Size::Large(3) => B, Size::Large(_) => END };
        B -> END
    };
    assert_eq!(steps(&by_hand).await, ["A", "A", "A", "B"]);
    assert_eq!(steps(&by_hand).await, steps(&drawn).await);
}

#[tokio::test]
async fn a_routing_node_is_equivalent_to_match() {
    let mut graph = StateGraph::new();
    let arms: [(Size, EdgeTarget); 2] = [(Size::Small, "A".into()), (Size::Large(3), END.into())];
    graph.add_routing_node("A", Measure, arms).set_entry_point("A");
    let app = graph.compile(CompileOptions::new()).unwrap();
    assert_eq!(steps(&app).await, ["A", "A", "A"]);
}

#[tokio::test]
async fn add_group_is_equivalent_to_braces() {
    let mut by_hand = StateGraph::new();
    by_hand.add_parallel_node("B", Say).add_parallel_node("C", Say).add_parallel_node("D", Say);
    by_hand.add_parallel_node("E", Say);
    by_hand.add_group("INNER", [["C"], ["D"]]);
    by_hand.add_group("OUTER", [vec!["B", "INNER"], vec!["E"]]);
    by_hand.add_node("A", Say).add_edge(START, "A");
    by_hand.add_edge("A", "OUTER").add_edge("OUTER", END);
    let by_hand = by_hand.compile(CompileOptions::new()).unwrap();
    let drawn = graph! {
        node A = (Say);
        node B = (Say);
        node C = (Say);
        node D = (Say);
        node E = (Say);
        A -> { B -> { C, D }, E } -> END
    };
    assert_eq!(steps(&by_hand).await, ["A", "B", "C", "D", "E"]);
    assert_eq!(steps(&by_hand).await, steps(&drawn).await);
}

#[tokio::test]
async fn node_options_are_equivalent_to_those_of_the_macro() {
    #[node]
    async fn flaky(state: &mut Trip, attempt: u32) -> Result<(), NodeError> {
        state.count += attempt;
        Err("no".into())
    }

    #[node]
    async fn recover(state: &mut Trip, error: Option<&NodeFailure>) {
        state.title = error.map(|error| format!("{} {}", error.node, error.attempt)).unwrap_or_default();
    }

    let mut graph = StateGraph::new();
    graph.set_node_options("FLAKY", NodeOptions::new().retry(1).on_error("RECOVER"));
    graph.add_node("FLAKY", flaky {}).add_node("RECOVER", recover {});
    graph.set_entry_point("FLAKY");
    graph.add_edge("FLAKY", END).add_edge("RECOVER", END);
    let app = graph.compile(CompileOptions::new()).unwrap();
    let state = app.invoke(Trip::default(), RunConfig::new()).await.unwrap();
    assert_eq!((state.title.as_str(), state.count), ("FLAKY 2", 0));
}

#[tokio::test]
async fn a_route_without_an_arm_is_an_error_of_the_node() {
    let mut graph = StateGraph::new();
    graph.add_node("A", Say).set_entry_point("A");
    graph.add_route("A", size, [(Size::Large(2), END.into())]);
    let app = graph.compile(CompileOptions::new()).unwrap();
    let error = failure(&app).await;
    assert_eq!(error.node(), Some("A"));
    assert!(error.downcast_ref::<agentflow::error::NoRoute>().is_some());
    assert!(error.to_string().ends_with("no arm for the route `Small`"), "{error}");

    let mut graph = StateGraph::new();
    graph.add_routing_node("A", Measure, [(Size::Large(2), END.into())]).set_entry_point("A");
    graph.set_node_options("A", NodeOptions::new().retry(1));
    let app = graph.compile(CompileOptions::new()).unwrap();
    let mut error = failure(&app).await;
    assert_eq!(&*error.downcast_ref::<agentflow::error::NoRoute>().unwrap().route, "Small");
    assert_eq!(committed(&mut error), Trip::default());

    let mut graph = StateGraph::new();
    graph.add_parallel_node("A", Say).add_group("G", [["A"]]).set_entry_point("G");
    graph.add_route("G", size, [(Size::Large(2), END.into())]);
    let app = graph.compile(CompileOptions::new()).unwrap();
    assert_eq!(failure(&app).await.node(), Some("G"));
}

#[test]
fn a_group_needs_branches_and_a_branch_needs_nodes() {
    let empty = || vec![BuildProblemKind::EmptyGroup { group: "G".into() }];
    let mut graph = StateGraph::new();
    graph.add_group("G", Vec::<Vec<&str>>::new()).set_entry_point("G").add_edge("G", END);
    assert_eq!(problems(graph), empty());

    let mut graph = StateGraph::new();
    graph.add_parallel_node("A", Say);
    graph.add_group("G", [vec!["A"], vec![]]).set_entry_point("G").add_edge("G", END);
    assert_eq!(problems(graph), empty());
}

#[test]
fn parallel_nodes_stand_in_groups_and_only_they_do() {
    let mut graph = StateGraph::new();
    graph.add_node("A", Say).add_parallel_node("B", Say);
    graph.add_group("G", [["A"]]).set_entry_point("G");
    graph.add_edge("G", "B").add_edge("B", END);
    assert_eq!(
        problems(graph),
        [
            BuildProblemKind::NotParallel { node: "A".into(), group: "G".into() },
            BuildProblemKind::NotInGroup { node: "B".into() },
        ]
    );
}

#[test]
fn a_node_stands_in_at_most_one_branch() {
    let two_places = || vec![BuildProblemKind::TwoPlaces { node: "A".into(), group: "G".into() }];
    let mut graph = StateGraph::new();
    graph.add_parallel_node("A", Say);
    graph.add_group("G", [["A"], ["A"]]).set_entry_point("G").add_edge("G", END);
    assert_eq!(problems(graph), two_places());

    let mut graph = StateGraph::new();
    graph.add_parallel_node("A", Say);
    graph.add_group("G", [["A", "A"]]).set_entry_point("G").add_edge("G", END);
    assert_eq!(problems(graph), two_places());

    let mut graph = StateGraph::new();
    graph.add_parallel_node("A", Say).add_group("F", [["A"]]);
    graph.add_group("G", [["A"]]).set_entry_point("F");
    graph.add_edge("F", "G").add_edge("G", END);
    assert_eq!(problems(graph), two_places());
}

#[test]
fn a_group_cannot_contain_itself() {
    let mut graph = StateGraph::new();
    graph.add_parallel_node("A", Say);
    graph.add_group("G", [["A"], ["G"]]).set_entry_point("G").add_edge("G", END);
    let in_itself = |group: &str| BuildProblemKind::GroupInItself { group: group.into() };
    assert!(problems(graph).contains(&in_itself("G")));

    // No edge leads into the ring.
    let mut graph = StateGraph::new();
    graph.add_node("A", Say).set_entry_point("A").add_edge("A", END);
    graph.add_group("F", [["G"]]).add_group("G", [["F"]]);
    assert_eq!(problems(graph), [in_itself("F"), in_itself("G")]);
}

#[test]
fn edges_decisions_and_fallbacks_of_a_branch_stay_in_it() {
    let of = |node: &str| BuildProblemKind::EdgeOfBranch { node: node.into(), group: "G".into() };
    let build = |wire: fn(&mut StateGraph<Trip>)| {
        let mut graph = StateGraph::new();
        graph.add_parallel_node("A", Say).add_parallel_node("B", Say).add_node("C", Say);
        graph.add_group("G", [["A"], ["B"]]).set_entry_point("G");
        graph.add_edge("G", "C").add_edge("C", END);
        wire(&mut graph);
        problems(graph)
    };
    assert_eq!(build(|graph| _ = graph.add_edge("A", "C")), [of("A")]);
    assert_eq!(build(|graph| _ = graph.add_edge("A", END)), [of("A")]);
    assert_eq!(build(|graph| _ = graph.add_route("B", size, [(Size::Small, "C".into())])), [of("B")]);
    let fallback = NodeOptions::new().on_error("C");
    let mut graph = StateGraph::new();
    graph.add_parallel_node("A", Say).add_node("C", Say).add_group("G", [["A"]]).set_entry_point("G");
    graph.add_edge("G", "C").add_edge("C", END).set_node_options("A", fallback);
    assert_eq!(problems(graph), [of("A")]);

    // An edge cannot lead into the middle of a group either.
    let mut graph = StateGraph::new();
    graph.add_parallel_node("A", Say).add_group("G", [["A"]]).add_node("C", Say);
    graph.set_entry_point("A").add_edge("G", "C").add_edge("C", END);
    assert_eq!(problems(graph), [of("A")]);
    let mut graph = StateGraph::new();
    graph.add_parallel_node("A", Say).add_group("G", [["A"]]).add_node("C", Say);
    graph.set_entry_point("C").add_edge("C", "G").add_edge("G", END);
    graph.set_node_options("C", NodeOptions::new().on_error("A"));
    assert_eq!(problems(graph), [of("A")]);
}

#[test]
fn options_belong_to_nodes() {
    let mut graph = StateGraph::new();
    graph.add_parallel_node("A", Say).add_group("G", [["A"]]).set_entry_point("G").add_edge("G", END);
    graph.set_node_options("G", NodeOptions::new().retry(1));
    graph.set_node_options("GG", NodeOptions::new().retry(1));
    graph.set_node_options("A", NodeOptions::new().on_error("Q"));
    let unknown = |name: &str| BuildProblemKind::UnknownNode { name: name.into(), suggestion: None };
    let found = problems(graph);
    assert!(found.contains(&BuildProblemKind::OptionsOfGroup { group: "G".into() }), "{found:?}");
    assert!(found.contains(&unknown("GG")) && found.contains(&unknown("Q")), "{found:?}");
}

#[test]
fn a_node_has_an_edge_or_a_decision() {
    let second = |first: &str, second: &str| BuildProblemKind::SecondOutgoingEdge {
        from: "A".into(),
        first: first.into(),
        second: second.into(),
    };
    let start = || {
        let mut graph = StateGraph::new();
        graph.add_node("A", Say).add_node("B", Say);
        graph.set_entry_point("A").add_edge("B", END);
        graph
    };
    let mut graph = start();
    graph.add_edge("A", "B").add_route("A", size, [(Size::Small, END.into())]);
    assert_eq!(problems(graph), [second("B", "a decision")]);

    let mut graph = start();
    graph.add_route("A", size, [(Size::Small, "B".into())]);
    graph.add_route("A", size, [(Size::Small, END.into())]);
    assert_eq!(problems(graph), [second("B", "a decision")]);

    let mut graph = StateGraph::new();
    graph.add_routing_node("A", Measure, [(Size::Small, END.into())]).set_entry_point("A");
    graph.add_edge("A", END);
    assert_eq!(problems(graph), [second("END", "a decision")]);
}

#[test]
fn a_decision_without_arms_is_no_outgoing_edge() {
    let mut graph = StateGraph::new();
    graph.add_node("A", Say).set_entry_point("A");
    graph.add_route("A", size, []);
    assert_eq!(problems(graph), [BuildProblemKind::NoOutgoingEdge { node: "A".into(), end: "END" }]);
}

#[test]
fn each_endless_loop_is_reported_once_with_all_its_nodes() {
    let endless = |nodes: &[&str]| BuildProblemKind::EndlessLoop {
        nodes: nodes.iter().map(|node| (*node).into()).collect(),
        end: "END",
    };
    let mut graph = StateGraph::new();
    graph.add_node("A", Say).add_node("B", Say).add_parallel_node("X", Say).add_group("C", [["X"]]);
    graph.add_node("D", Say).set_entry_point("D");
    graph.add_edge("A", "B").add_edge("B", "C").add_edge("C", "A");
    // The path to the loop is not part of the loop, and an END on another path does not end it.
    graph.add_route("D", size, [(Size::Small, "A".into()), (Size::Large(1), END.into())]);
    assert_eq!(problems(graph), [endless(&["A", "B", "C"])]);

    // An `on_error` edge leads out of a loop, and into one.
    let mut graph = StateGraph::new();
    graph.add_node("A", Say).add_node("B", Say).set_entry_point("A");
    graph.add_edge("A", "A").add_edge("B", END);
    graph.set_node_options("A", NodeOptions::new().on_error("B"));
    graph.compile(CompileOptions::new()).unwrap();

    let mut graph = StateGraph::new();
    graph.add_node("A", Say).add_node("B", Say).set_entry_point("A");
    graph.add_edge("A", END).add_edge("B", "B");
    graph.set_node_options("A", NodeOptions::new().on_error("B"));
    assert_eq!(problems(graph), [endless(&["B"])]);

    let mut graph = StateGraph::new();
    graph.add_node("A", Say).add_node("B", Say).set_entry_point("A");
    graph.add_route("A", size, [(Size::Small, "A".into()), (Size::Large(1), "B".into())]);
    graph.add_edge("B", "A");
    let error = graph.compile(CompileOptions::new()).unwrap_err();
    let text = "nodes `A`, `B` loop forever: no path leads from them to `END`";
    assert!(error.to_string().contains(text), "{error}");
}

#[test]
fn an_unreachable_group_is_reported_without_its_branches() {
    let mut graph = StateGraph::new();
    graph.add_node("A", Say).set_entry_point("A").add_edge("A", END);
    graph.add_parallel_node("B", Say).add_group("G", [["B"]]).add_edge("G", "C");
    graph.add_node("C", Say).add_edge("C", "G");
    let unreachable = |node: &str| BuildProblemKind::Unreachable { node: node.into(), entry: "A".into() };
    assert_eq!(problems(graph), [unreachable("G")]);
}

#[test]
fn all_mistakes_are_reported_at_once_each_with_its_call() {
    let mut graph = StateGraph::<Trip>::new();
    let line = line!();
    graph.add_node("A", Say);
    graph.add_parallel_node("B", Say);
    graph.add_group("G", [vec!["A", "Bee"], vec![]]);
    graph.add_edge("A", "G");
    graph.add_route("G", size, [(Size::Small, "H".into())]);
    graph.set_node_options("G", NodeOptions::new().retry(1));
    graph.set_entry_point("G");
    let error = graph.compile(CompileOptions::new()).unwrap_err();
    let told: Vec<_> = error
        .problems()
        .iter()
        .map(|BuildProblem { kind, location, .. }| (location.line() - line, kind.to_string()))
        .collect();
    assert!(error.problems().iter().all(|problem| problem.location.file().ends_with("builder_flow.rs")));
    let expected = [
        (1, "node `A` is in group `G`, where nodes only read the state; add it with `add_parallel_node`"),
        (2, "node `B` was added with `add_parallel_node` but is in no group; add it with `add_node`"),
        (3, "group `G` has no branches, or an empty one"),
        (3, "there is no node `Bee`"),
        (
            4,
            "node `A` runs in a branch of group `G`, so edges connect it with nodes of the same branch and with `JOIN` only; add other edges to the group",
        ),
        (5, "there is no node `H`"),
        (6, "`G` is a group: it has `on_error` and `label`, and its nodes have the other options"),
    ];
    assert_eq!(told, expected.map(|(line, text)| (line, text.to_owned())));
    assert!(error.to_string().starts_with("the graph cannot be compiled, 7 problems:\n  node `A`"));
}

#[test]
fn a_route_has_one_arm() {
    let mut graph = StateGraph::<Trip>::new();
    graph.add_node("A", Say).set_entry_point("A");
    graph.add_route("A", |_| true, [(true, END.into()), (false, END.into()), (true, "A".into())]);
    let error = graph.compile(CompileOptions::new()).unwrap_err();
    assert_eq!(error.problems().len(), 1, "{error}");
    assert!(error.to_string().contains("two arms for `true`"), "{error}");
}

//! Decisions: the edges that a run takes, and the limit on their number.

use agentflow::{
    NodeError, NodeFailure, Route, RunConfig,
    error::Panicked,
    graph, node,
    run::{LastState, RunErrorKind},
};

use crate::support::{Say, Trip, TripUpdate, committed, failure, steps};

#[derive(Debug, Route)]
enum Step {
    Wait(u32),
    Stop { reason: &'static str },
    Done,
}

fn trip(count: u32) -> Trip {
    Trip { count, ..Trip::default() }
}

/// Counts its visits.
#[node]
async fn visit(state: &mut Trip) {
    state.count += 1;
}

/// Returns true after three visits.
fn is_far(state: &Trip) -> bool {
    state.count >= 3
}

fn size(state: &Trip) -> Step {
    match state.count {
        0 => Step::Done,
        1..=9 => Step::Wait(state.count),
        _ => Step::Stop { reason: "too many" },
    }
}

#[tokio::test]
async fn a_router_reads_the_state() {
    let app = graph! {
        node A = (Say);
        node SMALL = (Say);
        node LARGE = (Say);
        A -> match size {
            Step::Done => END,
            Step::Wait(_) => SMALL -> END,
            Step::Stop { .. } => LARGE -> END,
        }
    };
    for (count, expected) in [(0, vec!["A"]), (9, vec!["A", "SMALL"]), (10, vec!["A", "LARGE"])] {
        let state = app.invoke(trip(count), RunConfig::new()).await.unwrap();
        assert_eq!(state.steps, expected);
    }
}

#[tokio::test]
async fn a_router_sees_the_changes_of_the_node_before_it() {
    let app = graph! {
        node B = (Say);
        visit -> match |state: &Trip| state.count { 1 => B -> END, _ => END }
    };
    assert_eq!(steps(&app).await, ["B"]);
}

#[tokio::test]
async fn a_returned_route_matches_with_payload_and_guards() {
    #[node]
    async fn decide(state: &mut Trip) -> Step {
        size(state)
    }

    let patience = 5;
    let app = graph! {
        node SHORT = (Say);
        node LONG = (Say);
        node STOP = (Say);
        decide -> match {
            Step::Wait(turns) if turns > patience => LONG -> END,
            Step::Wait(_) => SHORT -> END,
            Step::Stop { reason: "too many" } => STOP -> END,
            Step::Stop { .. } | Step::Done => END,
        }
    };
    for (count, expected) in [(0, vec![]), (5, vec!["SHORT"]), (6, vec!["LONG"]), (10, vec!["STOP"])] {
        let state = app.invoke(trip(count), RunConfig::new()).await.unwrap();
        assert_eq!(state.steps, expected, "{count}");
    }
}

/// Nodes of each form that return a route.
mod forms {
    use super::*;

    #[node]
    pub(super) async fn in_place(state: &mut Trip) -> bool {
        state.count += 1;
        state.count < 2
    }

    #[node]
    pub(super) async fn in_place_or_error(state: &mut Trip) -> Result<bool, NodeError> {
        state.count += 1;
        Ok(state.count < 2)
    }

    #[node]
    pub(super) async fn stateless() -> Step {
        Step::Done
    }

    #[node]
    pub(super) async fn reads(state: &Trip) -> bool {
        state.count < 2
    }

    #[node]
    pub(super) async fn reads_or_error(state: &Trip) -> Result<Step, std::io::Error> {
        Ok(size(state))
    }

    #[node]
    pub(super) async fn updates(state: &Trip) -> (TripUpdate, bool) {
        (Trip::update().count(state.count + 1), state.count < 1)
    }

    #[node]
    pub(super) async fn updates_or_error(state: &Trip) -> Result<(TripUpdate, Step), NodeError> {
        Ok((Trip::update().count(state.count + 1), Step::Wait(state.count)))
    }

    #[node]
    pub(super) async fn owns(mut state: Trip) -> (Trip, bool) {
        state.count += 1;
        let goes_on = state.count < 2;
        (state, goes_on)
    }

    #[node]
    pub(super) async fn owns_or_error(mut state: Trip) -> Result<(Trip, Step), NodeError> {
        state.count += 1;
        Ok((state, Step::Done))
    }
}

#[tokio::test]
async fn every_form_of_a_node_may_return_a_route() {
    use forms::*;

    macro_rules! goes {
        ($node:ident, $from:literal => $steps:expr, $count:literal) => {{
            let app = graph! {
                node B = (Say);
                $node -> match { true => B -> END, false => END }
            };
            let state = app.invoke(trip($from), RunConfig::new()).await.unwrap();
            assert_eq!((state.steps.as_slice(), state.count), ($steps.as_slice(), $count));
        }};
    }
    goes!(in_place, 0 => ["B".to_owned()], 1);
    goes!(in_place, 1 => [], 2);
    goes!(in_place_or_error, 0 => ["B".to_owned()], 1);
    goes!(reads, 1 => ["B".to_owned()], 1);
    goes!(reads, 2 => [], 2);
    goes!(updates, 0 => ["B".to_owned()], 1);
    goes!(updates, 1 => [], 2);
    goes!(owns, 0 => ["B".to_owned()], 1);
    goes!(owns, 1 => [], 2);

    macro_rules! waits {
        ($node:ident, $from:literal => $steps:expr, $count:literal) => {{
            let app = graph! {
                type State = Trip;
                node W = (Say);
                $node -> match { Step::Wait(_) => W -> END, Step::Stop { .. } | Step::Done => END }
            };
            let state = app.invoke(trip($from), RunConfig::new()).await.unwrap();
            assert_eq!((state.steps.as_slice(), state.count), ($steps.as_slice(), $count));
        }};
    }
    waits!(stateless, 1 => [], 1);
    waits!(reads_or_error, 1 => ["W".to_owned()], 1);
    waits!(updates_or_error, 1 => ["W".to_owned()], 2);
    waits!(owns_or_error, 1 => [], 2);
}

#[tokio::test]
async fn an_error_instead_of_a_route_is_the_nodes_error() {
    #[node]
    async fn decide(_state: &Trip) -> Result<(TripUpdate, bool), &'static str> {
        Err("no idea")
    }

    let app = graph! { decide -> match { true => visit -> END, false => END } };
    let mut error = failure(&app).await;
    assert_eq!(error.node(), Some("decide"));
    assert_eq!(committed(&mut error), Trip::default());
}

#[tokio::test]
async fn a_loop_ends_by_its_decision() {
    let app = graph! {
        node A = (Say);
        node B = (Say);
        A -> visit -> B -> match is_far { true => END, false => A }
    };
    let state = app.invoke(Trip::default(), RunConfig::new()).await.unwrap();
    assert_eq!((state.count, state.steps), (3, ["A", "B"].repeat(3).into_iter().map(String::from).collect()));
}

#[tokio::test]
async fn arms_contain_chains_and_decisions_and_may_converge() {
    fn is_even(state: &Trip) -> bool {
        state.count.is_multiple_of(2)
    }

    let app = graph! {
        node A = (Say);
        node FAR = (Say);
        node NEAR = (Say);
        node ODD = (Say);
        node LAST = (Say);
        A -> match is_far {
            true => FAR -> LAST,
            false => NEAR -> match is_even {
                true => visit -> LAST,
                false => ODD -> visit,
            },
        };
        LAST -> END
    };
    for (count, expected) in
        [(0, vec!["A", "NEAR", "LAST"]), (1, vec!["A", "NEAR", "ODD", "LAST"]), (3, vec!["A", "FAR", "LAST"])]
    {
        let state = app.invoke(trip(count), RunConfig::new()).await.unwrap();
        assert_eq!(state.steps, expected);
    }
}

#[tokio::test]
async fn a_decision_after_a_group_sees_the_merged_state() {
    let app = graph! {
        node A = (Say);
        node B = (Say);
        node C = (Say);
        node D = (Say);
        A -> { B, C } -> match |state: &Trip| state.steps.join("") {
            way if way == "ABC" => D -> END,
            _ => END,
        }
    };
    assert_eq!(steps(&app).await, ["A", "B", "C", "D"]);
}

#[tokio::test]
async fn a_router_that_panics_after_a_group_is_the_groups_error() {
    let app = graph! {
        node A = (Say);
        node B = (Say);
        START -> { A, B } -> match lost { true => END, false => END }
    };
    let mut error = failure(&app).await;
    assert_eq!(error.node(), Some("{A, B}"));
    assert_eq!(error.downcast_ref::<Panicked>().unwrap().message.as_ref(), "lost at 0");
    // The group itself succeeded, so its updates are committed.
    assert_eq!(committed(&mut error).steps, ["A", "B"]);
}

fn lost(state: &Trip) -> bool {
    assert!(state.count > 2, "lost at {}", state.count);
    true
}

#[tokio::test]
async fn a_router_that_panics_is_the_nodes_error() {
    let app = graph! { visit -> match lost { true => END, false => visit } };
    let mut error = failure(&app).await;
    assert_eq!(error.node(), Some("visit"));
    assert_eq!(error.downcast_ref::<Panicked>().unwrap().message.as_ref(), "lost at 1");
    assert_eq!(error.take_state(), Some(LastState::Uncommitted(trip(1))));
    // The app still works after the panic.
    assert_eq!(app.invoke(trip(2), RunConfig::new()).await.unwrap().count, 3);
}

#[tokio::test]
async fn a_nodes_options_cover_the_decision_that_follows_it() {
    #[node]
    async fn count(state: &Trip, attempt: u32) -> TripUpdate {
        Trip::update().count(state.count + attempt).steps([attempt.to_string()])
    }

    #[node]
    async fn recover(state: &mut Trip, error: Option<&NodeFailure>) {
        let error = error.unwrap();
        state.title = format!("{} {}", error.node, error.attempt);
    }

    let app = graph! {
        node COUNT = count { retry: 2 };
        COUNT -> match lost { true => END, false => visit };
        visit -> END
    };
    let state = app.invoke(Trip::default(), RunConfig::new()).await.unwrap();
    // Each attempt started from the state before the first one.
    assert_eq!((state.count, state.steps), (3, vec!["3".to_owned()]));

    let app = graph! {
        node COUNT = count { retry: 1, on_error: recover };
        COUNT -> match lost { true => END, false => END };
        recover -> END
    };
    let state = app.invoke(Trip::default(), RunConfig::new()).await.unwrap();
    assert_eq!(state, Trip { title: "COUNT 2".into(), ..Trip::default() });
}

#[tokio::test]
async fn an_update_is_not_committed_if_a_guard_panics() {
    #[node]
    async fn decide(_state: &Trip, attempt: u32) -> (TripUpdate, Step) {
        (Trip::update().steps(["decided"]), Step::Wait(attempt))
    }

    fn is_right(attempt: u32) -> bool {
        assert!(attempt > 1, "wrong");
        true
    }

    let once = graph! {
        node A = (Say);
        A -> decide -> match { Step::Wait(n) if is_right(n) => END, _ => END }
    };
    let mut error = failure(&once).await;
    assert_eq!(error.node(), Some("decide"));
    assert!(matches!(error.take_state::<Trip>(), Some(LastState::Uncommitted(_))));

    let twice = graph! {
        node DECIDE = decide { retry: 1 };
        DECIDE -> match { Step::Wait(n) if is_right(n) => END, _ => END }
    };
    assert_eq!(steps(&twice).await, ["decided"]);
}

mod limits {
    use super::*;

    /// Returns the parts of the limit's error: the limit, the node that was not run, and the nodes of the loop.
    fn limit_of(error: &agentflow::RunError) -> (usize, String, Vec<String>) {
        match error.kind() {
            RunErrorKind::RecursionLimit { limit, node, nodes, .. } => {
                let nodes = nodes.iter().map(ToString::to_string).collect();
                (*limit, node.to_string(), nodes)
            }
            other => panic!("not the limit: {other}"),
        }
    }

    fn at_least(count: u32) -> impl Fn(&Trip) -> bool {
        move |state| state.count >= count
    }

    #[tokio::test]
    async fn a_run_of_exactly_the_limits_steps_succeeds() {
        let within = graph! { visit -> match at_least(25) { true => END, false => visit } };
        assert_eq!(within.invoke(Trip::default(), RunConfig::new()).await.unwrap().count, 25);

        let beyond = graph! { visit -> match at_least(26) { true => END, false => visit } };
        let mut error = failure(&beyond).await;
        assert_eq!(limit_of(&error), (25, "visit".into(), vec!["visit".into()]));
        assert_eq!(error.node(), Some("visit"));
        assert_eq!(committed(&mut error).count, 25);
    }

    #[tokio::test]
    async fn the_limit_is_set_per_graph() {
        let one = graph! { visit -> END; compile { recursion_limit: 1 } };
        assert_eq!(one.invoke(Trip::default(), RunConfig::new()).await.unwrap().count, 1);

        let none = graph! { visit -> END; compile { recursion_limit: 0 } };
        assert_eq!(limit_of(&failure(&none).await), (0, "visit".into(), vec![]));
    }

    #[tokio::test]
    async fn the_error_names_the_nodes_of_the_loop_and_no_others() {
        let app = graph! {
            node BEFORE = (Say);
            node A = (Say);
            node B = (Say);
            node C = (Say);
            BEFORE -> A -> B -> C -> match is_far { true => END, false => A };
            compile { recursion_limit: 9 }
        };
        let error = failure(&app).await;
        assert_eq!(limit_of(&error), (9, "C".into(), vec!["C".into(), "A".into(), "B".into()]));
        assert_eq!(
            error.to_string(),
            "the recursion limit of 9 node executions was reached before node `C`, in the loop of `C`, `A`, `B`; \
             raise it with `compile { recursion_limit: .. }` if the path is meant to be that long"
        );
    }

    #[tokio::test]
    async fn a_chain_beyond_the_limit_is_not_reported_as_a_loop() {
        let app = graph! {
            node A = (Say);
            node B = (Say);
            node C = (Say);
            A -> B -> C -> END;
            compile { recursion_limit: 2 }
        };
        let error = failure(&app).await;
        assert_eq!(limit_of(&error), (2, "C".into(), vec![]));
        assert!(
            error
                .to_string()
                .starts_with("the recursion limit of 2 node executions was reached before node `C`; raise it with")
        );
    }

    #[tokio::test]
    async fn the_error_names_the_inner_loop_that_exceeded_the_limit() {
        let app = graph! {
            node A = (Say);
            node B = (Say);
            node C = (Say);
            A -> B -> match |state: &Trip| state.steps.len() {
                0..10 => B,
                10 => A,
                _ => C -> END,
            };
            compile { recursion_limit: 10 }
        };
        assert_eq!(limit_of(&failure(&app).await), (10, "A".into(), vec!["B".into()]));
    }

    #[tokio::test]
    async fn in_a_group_the_longest_branch_counts() {
        macro_rules! app {
            ($limit:literal) => {
                graph! {
                    node A = (Say);
                    node B = (Say);
                    node C = (Say);
                    node D = (Say);
                    node E = (Say);
                    A -> { B, C -> D } -> E -> END;
                    compile { recursion_limit: $limit }
                }
            };
        }
        assert_eq!(steps(&app!(4)).await, ["A", "B", "C", "D", "E"]);

        let mut error = failure(&app!(3)).await;
        assert_eq!(limit_of(&error), (3, "E".into(), vec![]));
        assert_eq!(committed(&mut error).steps, ["A", "B", "C", "D"]);

        // A branch failed, so nothing of the group is merged.
        let mut error = failure(&app!(2)).await;
        assert_eq!(limit_of(&error), (2, "D".into(), vec![]));
        assert_eq!(committed(&mut error).steps, ["A"]);
    }

    #[tokio::test]
    async fn a_group_in_a_loop_is_named_with_the_loop() {
        let app = graph! {
            node A = (Say);
            node B = (Say);
            node C = (Say);
            A -> { B, C } -> match is_far { true => END, false => A };
            compile { recursion_limit: 6 }
        };
        let named = limit_of(&failure(&app).await);
        assert_eq!(named, (6, "A".into(), vec!["A".into(), "B".into(), "C".into()]));
    }

    #[tokio::test]
    async fn a_subgraph_and_its_nodes_count_as_steps() {
        macro_rules! app {
            ($limit:literal) => {
                graph! {
                    node A = (Say);
                    node X = (Say);
                    graph SUB {
                        node B = (Say);
                        node C = (Say);
                        B -> C -> END
                    }
                    A -> SUB -> X -> END;
                    compile { recursion_limit: $limit }
                }
            };
        }
        // The five steps are A, SUB, SUB/B, SUB/C and X.
        assert_eq!(steps(&app!(5)).await, ["A", "SUB/B", "SUB/C", "X"]);
        assert_eq!(limit_of(&failure(&app!(4)).await), (4, "X".into(), vec![]));
        assert_eq!(limit_of(&failure(&app!(3)).await), (3, "SUB/C".into(), vec![]));
    }

    #[tokio::test]
    async fn a_loop_inside_a_subgraph_is_named_with_its_path() {
        let app = graph! {
            node X = (Say);
            graph SUB {
                node A = (Say);
                node B = (Say);
                A -> B -> match is_far { true => END, false => A }
            }
            SUB -> X -> END
        };
        let error = failure(&app).await;
        assert_eq!(limit_of(&error), (25, "SUB/A".into(), vec!["SUB/A".into(), "SUB/B".into()]));
        assert_eq!(error.node(), Some("SUB/A"));
    }

    #[tokio::test]
    async fn a_graph_without_a_loop_never_reaches_the_default_limit() {
        let mut inner = agentflow::StateGraph::<Trip>::new();
        let names: Vec<_> = (0..40).map(|n| format!("N{n}")).collect();
        for name in &names {
            inner.add_node(name.as_str(), Say);
        }
        for pair in names.windows(2) {
            inner.add_edge(pair[0].as_str(), pair[1].as_str());
        }
        inner.add_edge("N39", agentflow::END).set_entry_point("N0");
        let inner = inner.compile(agentflow::CompileOptions::new()).unwrap();
        assert_eq!(steps(&inner).await.len(), 40);

        let outer = graph! { node SUB = (inner); SUB -> END };
        assert_eq!(steps(&outer).await.len(), 40);
    }
}

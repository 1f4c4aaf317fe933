//! `invoke_from`: runs that start at a node.

use agentflow::{
    CompiledGraph, NodeError, NodeFailure, RunConfig, RunError, State, graph, node,
    run::{LastState, RunErrorKind},
};

use crate::support::capture;

#[derive(Clone, Debug, Default, PartialEq, State)]
struct Trip {
    #[state(append)]
    stops: Vec<&'static str>,
}

macro_rules! stops {
    ($($name:ident)*) => {$(
        #[node]
        async fn $name(_state: &Trip) -> TripUpdate {
            Trip::update().stops([stringify!($name)])
        }
    )*};
}
stops! { a b c d e }

fn again(state: &Trip) -> bool {
    state.stops.len() < 4
}

fn app() -> CompiledGraph<Trip> {
    graph! {
        graph SUB { c -> END }
        a -> { b, { d, e } -> c } -> SUB -> match again { true => a, false => END };
    }
}

async fn from(app: &CompiledGraph<Trip>, node: &str) -> Result<Vec<&'static str>, RunError> {
    app.invoke_from(node, Trip::default(), RunConfig::new()).await.map(|state| state.stops)
}

#[tokio::test]
async fn a_run_starts_at_a_node_a_group_or_a_nested_graph() {
    let app = graph! {
        graph SUB { c -> END }
        a -> { b, d } -> SUB -> e -> END;
    };
    assert_eq!(from(&app, "a").await.unwrap(), ["a", "b", "d", "c", "e"]);
    assert_eq!(from(&app, "{b, d}").await.unwrap(), ["b", "d", "c", "e"]);
    assert_eq!(from(&app, "SUB").await.unwrap(), ["c", "e"]);
    assert_eq!(from(&app, "e").await.unwrap(), ["e"]);
    // The graph itself begins where it did.
    assert_eq!(app.invoke(Trip::default(), RunConfig::new()).await.unwrap().stops.len(), 5);
}

#[tokio::test]
async fn the_run_takes_the_edges_behind_its_start() {
    let app = graph! { a -> b -> match again { true => a, false => END } };
    assert_eq!(from(&app, "b").await.unwrap(), ["b", "a", "b", "a", "b"]);
    assert_eq!(app.clone().erase().invoke_from("b", Trip::default(), RunConfig::new()).await.unwrap().stops.len(), 5);
}

#[tokio::test]
async fn an_unknown_node_is_refused_with_a_suggestion_and_the_state() {
    let app = graph! {
        graph SUB { c -> END }
        node REVIEW = a;
        REVIEW -> SUB -> END;
    };
    for (node, suggested, text) in [
        ("REVIEWS", Some("REVIEW"), "the graph has no such node; did you mean `REVIEW`?"),
        ("SUB/c", Some("SUB"), "the graph has no such node; did you mean `SUB`?"),
        ("payment", None, "the graph has no such node"),
        ("END", None, "the graph has no such node"),
        ("", None, "the graph has no such node"),
    ] {
        let state = Trip { stops: vec!["home"] };
        let mut error = app.invoke_from(node, state.clone(), RunConfig::new()).await.unwrap_err();
        assert_eq!(error.to_string(), format!("a run cannot start at `{node}`: {text}"));
        let RunErrorKind::UnknownNode { node: name, suggestion, .. } = error.kind() else { panic!("{error:?}") };
        assert_eq!((&**name, suggestion.as_deref(), error.node()), (node, suggested, None));
        assert_eq!(error.take_state(), Some(LastState::Committed(state)));
    }
    assert_eq!(app.aclose().await.runs.ended, 0, "no run was counted");
}

#[tokio::test]
async fn a_node_inside_a_group_is_refused() {
    let (log, _guard) = capture();
    let app = app();
    for node in ["b", "d", "e", "c"] {
        let error = from(&app, node).await.unwrap_err();
        let RunErrorKind::InsideGroup { group, .. } = error.kind() else { panic!("{error:?}") };
        let text = format!("a run cannot start at `{node}`, which is inside the group `{group}`: start at the group");
        assert_eq!(error.to_string(), text);
        // The group is the outermost one, at which a run can start.
        assert!(from(&app, group).await.is_ok());
    }
    assert_eq!(log.events("run rejected").len(), 4);
}

#[tokio::test]
async fn a_run_continues_at_the_next_node_of_a_commit() {
    let commits = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let saved = std::sync::Arc::clone(&commits);
    let app = graph! {
        graph SUB { c -> END }
        a -> { b, { d, e } -> c } -> SUB -> match again { true => a, false => END };
        compile { on_commit: move |commit| {
            saved.lock().unwrap().push((commit.next.map(str::to_owned), commit.state.clone()));
        } }
    };
    let whole = app.invoke(Trip::default(), RunConfig::new()).await.unwrap();
    let commits = std::mem::take(&mut *commits.lock().unwrap());
    assert_eq!(commits.len(), 3);
    for (next, state) in commits {
        let Some(next) = next else { continue };
        assert_eq!(app.invoke_from(&next, state, RunConfig::new()).await.unwrap(), whole);
    }
}

#[tokio::test]
async fn a_fallback_at_the_start_sees_no_failure_and_limits_count_anew() {
    #[node]
    async fn recover(state: &mut Trip, error: Option<&NodeFailure>) -> Result<(), NodeError> {
        state.stops.push(if error.is_some() { "recovered" } else { "fresh" });
        Ok(())
    }
    #[node]
    async fn fails(_state: &mut Trip) -> Result<(), NodeError> {
        Err("no road".into())
    }
    let app = graph! {
        node F = fails { on_error: recover };
        F -> recover -> a -> END;
        compile { recursion_limit: 2 }
    };
    assert_eq!(from(&app, "recover").await.unwrap(), ["fresh", "a"]);
    assert!(matches!(from(&app, "F").await.unwrap_err().kind(), RunErrorKind::RecursionLimit { .. }));
}
